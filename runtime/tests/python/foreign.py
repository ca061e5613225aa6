"""Drives the embedded registry as a consumer's own program would; prints what it saw as JSON.

Usage: foreign.py URL BOOTSTRAP TOPIC
"""

import json
import sys
import warnings

warnings.filterwarnings("ignore")

from confluent_kafka import Consumer, Producer
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.error import SchemaRegistryError
from confluent_kafka.serialization import MessageField, SerializationContext

url, bootstrap, topic = sys.argv[1:4]
client = SchemaRegistryClient({"url": url})
subject = f"{topic}-value"
ONE = json.dumps({"type": "record", "name": "Row", "namespace": "foreign", "doc": "a row", "fields": [{"name": "a", "type": "string"}]})
TWO = json.dumps(
    {
        "type": "record",
        "name": "Row",
        "namespace": "foreign",
        "doc": "a row",
        "fields": [{"name": "a", "type": "string"}, {"name": "b", "type": ["null", "long"], "default": None}],
    }
)
BAD = TWO.replace('["null", "long"], "default": null', '"long"')
assert BAD != TWO
seen = {}

# Written with a serializer that registers, read back by ours and by its own deserializer.
context = SerializationContext(topic, MessageField.VALUE)
serializer = AvroSerializer(client, ONE)
producer = Producer({"bootstrap.servers": bootstrap})
producer.produce(topic, key=b"python", value=serializer({"a": "from python"}, context))
assert producer.flush(30) == 0

# Without registration: looked up by text, found whatever its whitespace; an unknown one is refused.
lookup = AvroSerializer(SchemaRegistryClient({"url": url}), json.dumps(json.loads(ONE), indent=4), conf={"auto.register.schemas": False})
seen["looked_up"] = lookup({"a": "x"}, context)[:5].hex()
try:
    AvroSerializer(SchemaRegistryClient({"url": url}), TWO, conf={"auto.register.schemas": False})({"a": "x", "b": 1}, context)
    seen["unknown"] = "accepted"
except SchemaRegistryError as error:
    seen["unknown"] = error.error_code

seen["compatible"] = client.test_compatibility(subject, Schema(TWO, "AVRO"))
seen["incompatible"] = client.test_compatibility(subject, Schema(BAD, "AVRO"))
try:
    client.register_schema(subject, Schema(BAD, "AVRO"))
    seen["refused"] = "accepted"
except SchemaRegistryError as error:
    seen["refused"] = error.http_status_code
id_two = client.register_schema(subject, Schema(TWO, "AVRO"))
seen["versions"] = client.get_versions(subject)
latest = client.get_latest_version(subject)
seen["latest"] = [latest.version, latest.schema_id == id_two, latest.schema.schema_str == TWO]
seen["subject_known"] = subject in client.get_subjects()
try:
    client.get_compatibility(subject)
    seen["level"] = "set"
except SchemaRegistryError as error:
    seen["level"] = error.error_code
client.set_compatibility(subject, "FULL")
seen["level_after"] = client.get_compatibility(subject)
seen["global_level"] = client.get_compatibility()

# Read what the other side has written, with the latest schema of the reader's own choice.
deserializer = AvroDeserializer(SchemaRegistryClient({"url": url}))
consumer = Consumer(
    {"bootstrap.servers": bootstrap, "group.id": f"{topic}-python", "auto.offset.reset": "earliest", "isolation.level": "read_committed"}
)
consumer.subscribe([topic])
rows = []
while len(rows) < 2:
    message = consumer.poll(30)
    if message is None:
        break
    if message.error():
        raise SystemExit(str(message.error()))
    rows.append(deserializer(message.value(), SerializationContext(topic, MessageField.VALUE)))
consumer.close()
seen["rows"] = rows
print(json.dumps(seen))
