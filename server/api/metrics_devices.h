/* The metrics that are told of each device: dtrnet_device_...{device="0"}. Those without the label are of all devices together. */
#pragma once
#include "engine/engine.h"
#include "server/api/metrics_text.h"

#define METRICS_DEVICE_VALUES 12

/* What one device's samples are. */
struct metrics_device {
    int index; /* its number, the label */
    double values[METRICS_DEVICE_VALUES];
};

void metrics_device_read(struct metrics_device *d, int index, bool up, const struct engine_stats *s);
void metrics_devices(struct metrics_page *p, const struct metrics_device *d, int n);
