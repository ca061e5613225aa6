-- Asset records as an upsert table: one row an asset.
CREATE TABLE assets (
  asset_id STRING, serial_number STRING, status STRING, in_organization BOOLEAN, released_from_org_date_time TIMESTAMP(3),
  `__deleted` STRING, `__version` BIGINT,
  PRIMARY KEY (asset_id) NOT ENFORCED
) WITH (
  'connector' = 'upsert-kafka', 'topic' = 'assets.devices', 'properties.bootstrap.servers' = '127.0.0.1:9092',
  'properties.isolation.level' = 'read_committed', 'key.format' = 'avro-confluent', 'key.avro-confluent.url' = 'http://127.0.0.1:8081',
  'value.format' = 'avro-confluent', 'value.avro-confluent.url' = 'http://127.0.0.1:8081'
);

SELECT status, COUNT(*) AS assets FROM assets WHERE `__deleted` = 'false' AND in_organization GROUP BY status;

-- A released device keeps its asset: `in_organization` is false and the date is set.
SELECT serial_number, released_from_org_date_time FROM assets WHERE `__deleted` = 'false' AND NOT in_organization;
