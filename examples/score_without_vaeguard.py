"""Deploy a model: export it, then score images with ONNX Runtime alone, at any false-alarm rate.

python examples/score_without_vaeguard.py [FOLDER]
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime

import vaeguard

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "example-deployment")

# On the machine where the model is fitted: fit it on the digits 0 to 8, so that a 9 is an anomaly, and export it.
digits = vaeguard.open_images("digits", split="train")
detector = vaeguard.fit(digits, normal_classes="0-8", run=folder / "run", epochs=20)
parity = vaeguard.export(detector, folder / "model.onnx", images=digits.images[:64])
print(f"compared with PyTorch on {parity.images} images: largest relative error {max(parity.errors.values()):.1e}")

# On the machine where the model runs: score with NumPy and ONNX Runtime alone. Only the images come from vaeguard.
test = vaeguard.open_images("digits", split="test")
images, labels = np.asarray(test.images[:]), np.asarray(test.labels)
options = onnxruntime.SessionOptions()
options.log_severity_level = 3  # hides the warning that the input `fpr` has a default
session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
score, p_value = session.run(["score", "p_value"], {"image": images})
for fpr in (0.01, 0.05, 0.1):
    (flagged,) = session.run(["anomaly"], {"image": images, "fpr": np.array(fpr, np.float32)})
    caught, alarms = flagged[labels == 9].mean(), flagged[labels != 9].mean()
    print(f"stated rate {fpr}: {caught:.0%} of the 9s are flagged, and {alarms:.1%} of the other digits")
