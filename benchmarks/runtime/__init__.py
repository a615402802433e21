"""Speed of the runtime: what frames, workers and aggregator cost by themselves, without a model."""
