-- Store of version 1, as SQLite dumps it, with one instance in each of two partitions.
BEGIN TRANSACTION;
CREATE TABLE raw (rid integer primary key references resources on delete cascade, data text not null) strict;
INSERT INTO "raw" VALUES(1,'{"InstanceId": "i-1"}');
INSERT INTO "raw" VALUES(2,'{"InstanceId": "i-1"}');
CREATE TABLE resources (
        rid integer primary key, sync text not null, kind text not null, partition text not null, account text not null,
        account_name text, region text not null, id text not null, arn text not null, name text, columns text not null,
        first_seen real not null, last_seen real not null, gone_at real) strict;
INSERT INTO "resources" VALUES(1,'2026-11-18','ec2:instance','aws','012345678901','payments','us-east-1','i-1','arn:aws:ec2:us-east-1:012345678901:instance/i-1','web','{"type": "t3.micro", "tags": {"Owner": "x"}}',1795000000.0,1795000000.0,NULL);
INSERT INTO "resources" VALUES(2,'2026-11-18','ec2:instance','aws-cn','210987654321','payments','cn-north-1','i-1','arn:aws-cn:ec2:cn-north-1:210987654321:instance/i-1','web','{"type": "t3.micro", "tags": {"Owner": "x"}}',1795000000.0,1795000000.0,NULL);
CREATE TABLE scopes (
        sync text not null, partition text not null, account text not null, region text not null, kind text not null,
        status text not null check (status in ('ok', 'denied', 'throttled', 'error', 'skipped', 'timed_out')),
        rows integer not null, code text, reason text, began real not null, ended real not null,
        primary key (sync, kind, partition, account, region)) strict;
INSERT INTO "scopes" VALUES('2026-11-18','aws','012345678901','us-east-1','ec2:instance','ok',1,NULL,NULL,1795000000.0,1795000000.0);
INSERT INTO "scopes" VALUES('2026-11-18','aws-cn','210987654321','cn-north-1','ec2:instance','ok',1,NULL,NULL,1795000000.0,1795000000.0);
CREATE TABLE syncs (sync text primary key, mode text not null, began real not null, ended real,
        journal text) strict;
INSERT INTO "syncs" VALUES('2026-11-18','upsert',1795000000.0,1795000000.0,NULL);
CREATE INDEX resources_by_scope on resources (kind, partition, account, region, id);
CREATE VIEW ec2_instance as select r.rid, r.partition, r.account, r.account_name, r.region, r.id, r.arn, r.name, json_extract(r.columns, '$.type') as type, json_extract(r.columns, '$.tags') as tags, r.first_seen, r.last_seen, r.sync, coalesce((select s.status != 'ok' from scopes s where s.kind = r.kind and s.partition = r.partition and s.account = r.account and s.region = r.region order by s.ended desc limit 1), 1) as stale from resources r where r.kind = 'ec2:instance' and r.gone_at is null;
COMMIT;
pragma user_version = 1;
