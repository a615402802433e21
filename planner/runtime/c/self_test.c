#include "self_test.h"

#include "expected.h"
#include "model.h"

static float magnitude(float value) { return value < 0 ? -value : value; }

float vit_self_test(float *features, float *arena) {
  float largest = 1e-6f, difference = 0;
  for (unsigned i = 0; i < NUM_EXPECTED; i++) {
    model_infer(EXPECTED_IMAGES[i], features, arena);
    for (unsigned j = 0; j < MODEL_NUM_FEATURES; j++) {
      const float expected = EXPECTED_FEATURES[i][j], off = magnitude(features[j] - expected);
      /* What is no number stays the largest difference. */
      if (!(off <= difference) && difference == difference) difference = off;
      if (magnitude(expected) > largest) largest = magnitude(expected);
    }
  }
  return difference / largest;
}
