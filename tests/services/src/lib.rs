//! Real Apache Kafka, PostgreSQL and a schema registry, started for tests and local runs.
