//! The rim against real services: a broker, a registry, foreign clients.

#![allow(clippy::unwrap_used, reason = "a test ends where it finds what it did not expect")]

mod clients;
mod kafka_chain;
mod kafka_consumer;
mod kafka_dead_letters;
mod kafka_log;
mod kafka_mock;
mod kafka_outage;
mod kafka_publisher;
mod kafka_support;
mod kafka_table;
mod kafka_topics;
mod registry_client;
mod registry_foreign;
mod registry_server;
mod registry_topic;
mod registry_verdicts;
