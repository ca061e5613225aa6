-- Flink SQL 2.0, with flink-sql-connector-kafka and flink-sql-avro-confluent-registry on the class path.
-- A scan that is begun anew sends `op=r` for devices that Flink knows already: hence the option and the primary key.
SET 'table.exec.source.cdc-events-duplicate' = 'true';

CREATE TABLE devices (
  org STRING, device_id STRING, serial_number STRING, status STRING, mdm_server_name STRING,
  imei ARRAY<STRING>, updated_date_time TIMESTAMP(3), released_from_org_date_time TIMESTAMP(3),
  PRIMARY KEY (org, device_id) NOT ENFORCED
) WITH (
  'connector' = 'kafka', 'topic' = 'abm.devices', 'properties.bootstrap.servers' = '127.0.0.1:9092',
  'properties.isolation.level' = 'read_committed', 'scan.startup.mode' = 'earliest-offset',
  'format' = 'debezium-avro-confluent', 'debezium-avro-confluent.url' = 'http://127.0.0.1:8081'
);

SELECT mdm_server_name, COUNT(*) AS devices FROM devices WHERE released_from_org_date_time IS NULL GROUP BY mdm_server_name;

CREATE TABLE assets (
  asset_id STRING, serial_number STRING, status STRING, in_organization BOOLEAN, `__deleted` STRING, `__version` BIGINT,
  PRIMARY KEY (asset_id) NOT ENFORCED
) WITH (
  'connector' = 'upsert-kafka', 'topic' = 'assets.devices', 'properties.bootstrap.servers' = '127.0.0.1:9092',
  'properties.isolation.level' = 'read_committed', 'key.format' = 'avro-confluent', 'key.avro-confluent.url' = 'http://127.0.0.1:8081',
  'value.format' = 'avro-confluent', 'value.avro-confluent.url' = 'http://127.0.0.1:8081'
);

-- A released device keeps its asset, which is then no longer in the organization.
SELECT status, COUNT(*) AS assets FROM assets WHERE `__deleted` = 'false' AND in_organization GROUP BY status;
