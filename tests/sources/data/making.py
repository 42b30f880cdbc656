"""Small data sets on disk, in every layout, with the same samples."""

from __future__ import annotations

import csv
import json
from io import BytesIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def pictures(n, channels=3, seed=0, size=(6, 5)):
    """Random images, uint8 ``(n, *size, channels)``."""
    return np.random.default_rng(seed).integers(0, 256, (n, *size, channels), dtype=np.uint8)


def encoded(picture, kind="PNG", **settings):
    buffer = BytesIO()
    Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture).save(buffer, kind, **settings)
    return buffer.getvalue()


def hub_metadata(names, column="label"):
    features = {"image": {"_type": "Image"}, column: {"names": list(names), "_type": "ClassLabel"}}
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}


def image_table(images, labels, *, metadata=None, suffix=".png", label_type=None):
    """An Arrow table in the hubs' layout from encoded images (None for a hole)."""
    rows = [{"bytes": data, "path": f"{row:05d}{suffix}"} for row, data in enumerate(images)]
    table = pa.table({"image": pa.array(rows, IMAGE_TYPE), "label": pa.array(labels, label_type)})
    return table.replace_schema_metadata(metadata)


def text_table(texts, labels, *, metadata=None):
    return pa.table({"text": texts, "label": labels}).replace_schema_metadata(metadata)


def write_shards(folder, table, split="train", shards=1, row_group_size=4):
    folder.mkdir(parents=True, exist_ok=True)
    for number, rows in enumerate(np.array_split(np.arange(len(table)), shards)):
        part = table.slice(rows[0], len(rows)) if len(rows) else table.slice(0, 0)
        pq.write_table(part, folder / f"{split}-{number:05d}-of-{shards:05d}.parquet", row_group_size=row_group_size)
    return folder


def write_tree(root, images, labels, suffix=".png"):
    """Image files ``root/<label>/<row>.png``."""
    for row, (data, label) in enumerate(zip(images, labels, strict=True)):
        file = root / str(label) / f"{row:05d}{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return root


def write_csv(file, columns):
    """A CSV file from a mapping of column names to cells."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return file


def write_jsonl(file, rows):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return file
