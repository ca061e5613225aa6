"""Reads and writes the golden records with a third library.

    pip install fastavro && python3 golden.py
"""

import base64
import datetime
import io
import json
import pathlib
import sys

import fastavro

HERE = pathlib.Path(__file__).parent
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


def plain(value):
    """The form of the JSON files: times as milliseconds, bytes as base64."""
    if isinstance(value, datetime.datetime):
        return (value - EPOCH) // datetime.timedelta(milliseconds=1)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return value


failed = 0
records = sorted(HERE.glob("golden/*.hex"))
for path in records:
    name = path.stem
    folder, rest = name.removesuffix(".bare").split(".", 1)
    schema = fastavro.parse_schema(json.loads((HERE.parent / folder / f"{rest}.avsc").read_text()))
    datum = bytes.fromhex(path.read_text().strip())
    source = io.BytesIO(datum)
    value = fastavro.schemaless_reader(source, schema)
    written = io.BytesIO()
    fastavro.schemaless_writer(written, schema, value)
    expected = json.loads(path.with_suffix(".json").read_text())
    ok = plain(value) == expected and written.getvalue() == datum and not source.read()
    failed += not ok
    print("ok " if ok else "NOT", name)
sys.exit(bool(failed) or not records)
