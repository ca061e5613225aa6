-- Device changes as a changelog: Flink's table holds every device as it is now, the released ones with their date.
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

-- The devices of the organization by service. A released device has a date and no service.
SELECT mdm_server_name, COUNT(*) AS devices FROM devices WHERE released_from_org_date_time IS NULL GROUP BY mdm_server_name;

SELECT serial_number, released_from_org_date_time FROM devices WHERE released_from_org_date_time IS NOT NULL;
