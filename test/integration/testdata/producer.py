"""What the producers share: Confluent's client, its registry client, and a file of what a reader must find."""
import json

from confluent_kafka import Producer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.serialization import MessageField, SerializationContext

from exact import spell


class Kafka:
    def __init__(self, brokers, registry):
        self.producer = Producer({"bootstrap.servers": brokers, "linger.ms": 20, "compression.type": "zstd"})
        self.registry = SchemaRegistryClient({"url": registry})
        self.acknowledged = 0

    def bytes(self, topic, value, serializer):
        return serializer(value, SerializationContext(topic, MessageField.VALUE))

    def send(self, topic, value, key=None, delivered=None):
        """Sends bytes. delivered(partition, offset) is called when the broker has them."""

        def report(error, message):
            if error:
                raise RuntimeError(f"{topic}: {error}")
            self.acknowledged += 1
            if delivered:
                delivered(message.partition(), message.offset())

        while True:
            try:
                return self.producer.produce(topic, value=value, key=key, on_delivery=report)
            except BufferError:
                self.producer.poll(0.1)

    def flush(self):
        if left := self.producer.flush(60):
            raise RuntimeError(f"{left} records were not acknowledged within a minute")


class Expected:
    """What must be in one table: the types of its columns, and its rows by the values of a column."""

    def __init__(self, key, types):
        self.key, self.types, self.rows = key, types, {}

    def row(self, **columns):
        if set(columns) != set(self.types):
            raise ValueError(f"columns {set(columns) ^ set(self.types)} are in the row or the types only")
        key = spell(columns[self.key])
        if key in self.rows:
            raise ValueError(f"two rows {key}")
        self.rows[key] = {name: spell(v) for name, v in columns.items()}


def write(path, **tables):
    with open(path, "w") as out:
        json.dump({name: {"key": e.key, "types": e.types, "rows": e.rows} for name, e in tables.items()}, out)


def pick(i, *values):
    """One of the values; lists of different lengths meet in all combinations."""
    return values[i % len(values)]
