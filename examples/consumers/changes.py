"""Prints every device change, decoded: python changes.py BROKERS REGISTRY [TOPIC].

Needs: pip install "confluent-kafka[avro,schemaregistry]". Stops at the end of the topic.
"""

import sys

from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

brokers, registry, topic = (sys.argv[1:] + ["abm.devices"])[:3]
decode = AvroDeserializer(SchemaRegistryClient({"url": registry}))
consumer = Consumer({
    "bootstrap.servers": brokers,
    "group.id": "changes-example",
    "isolation.level": "read_committed",  # events of an aborted page never happened
    "enable.auto.commit": False,
    "enable.partition.eof": True,
})
partitions = [TopicPartition(topic, number, 0) for number in consumer.list_topics(topic).topics[topic].partitions]
consumer.assign(partitions)

at_end = set()
while len(at_end) < len(partitions):
    message = consumer.poll(1.0)
    if message is None:
        continue
    if message.error():
        if message.error().code() != KafkaError._PARTITION_EOF:
            raise SystemExit(message.error())
        at_end.add(message.partition())
    elif message.value() is not None:  # a tombstone follows each `op=d`
        change = decode(message.value(), SerializationContext(topic, MessageField.VALUE))
        device = change["after"] or change["before"]
        print(change["kind"], device["serial_number"], *change["changed"])
consumer.close()
