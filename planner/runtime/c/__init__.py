"""The C engine, and generators of its constants: for microcontrollers and boards without ONNX Runtime."""
