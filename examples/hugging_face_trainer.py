"""Prune a small vision transformer inside the Hugging Face Trainer.

Run:  python examples/hugging_face_trainer.py [FOLDER]      (needs: pip install 'secateurs[transformers]' scikit-learn)
"""

import sys
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification

import secateurs as sc
from secateurs.train.integrations.hugging_face import PrunerCallback


def digits() -> tuple[list[dict], list[dict]]:
    images, classes = load_digits(return_X_y=True)
    pixels = torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8) / 16
    rows = [{"pixel_values": image, "labels": int(label)} for image, label in zip(pixels, classes, strict=True)]
    return train_test_split(rows, test_size=0.3, stratify=classes, random_state=0)


def accuracy(prediction) -> dict[str, float]:
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


def main(folder: str) -> float:
    torch.manual_seed(0)
    train, test = digits()
    model = ViTForImageClassification(
        ViTConfig(image_size=8, patch_size=2, num_channels=1, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                  intermediate_size=64, num_labels=10))  # fmt: skip
    arguments = TrainingArguments(
        output_dir=str(Path(folder, "run")), max_steps=250, per_device_train_batch_size=64, learning_rate=0.003,
        logging_steps=50, save_steps=100, report_to=[])  # fmt: skip

    callback = PrunerCallback("gmp", sparsity=0.8, begin=0.1, end=0.75, every=10, exempt=("last-linear",))
    trainer = Trainer(model, arguments, train_dataset=train, eval_dataset=test, compute_metrics=accuracy, callbacks=[callback])
    trainer.train()  # resume_from_checkpoint=True continues masks and schedule too

    pruner = callback.pruner
    sc.save(model, Path(folder, "sparse"), recipe=pruner.recipe, plan=pruner.plan(), report=pruner.report(), overwrite=True)
    trainer.model = sc.load(Path(folder, "sparse"))
    score = trainer.evaluate()["eval_accuracy"]
    print(f"test accuracy {score:.3f} with {pruner.sparsity:.0%} of the selected weights removed; saved in {folder}")
    return score


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "pruned-vit")
