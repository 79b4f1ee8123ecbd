"""The image JSON in `final/`."""

import json


def final_json(rules, image, history=None):
    verdict = rules.judge(image, history)
    detections = [
        {"label": detection.label, "conf": detection.conf} for detection in image.detections
    ]
    data = {
        "id": image.id,
        "timestamp": image.timestamp,
        "detections": detections,
        "threat": verdict.to_json(),
    }
    return json.loads(json.dumps(data))
