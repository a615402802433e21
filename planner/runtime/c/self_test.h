/* Self-test of a sub-model: its answers to some images beside those that the export expected. */
#ifndef VIT_SELF_TEST_H
#define VIT_SELF_TEST_H

/* Return the largest difference from the expected features, as a share of the largest of them. The features have
 * MODEL_NUM_FEATURES floats, the arena has MODEL_ARENA_BYTES; EXPECTED_TOLERANCE is what rounding explains. */
float vit_self_test(float *features, float *arena);

#endif
