#!/bin/sh
# Run once, by the image, on the new cluster: the node's user and database, and what the standby needs.
set -eu
psql --set=ON_ERROR_STOP=1 --username="$POSTGRES_USER" --set=password="$(cat /run/secrets/store-password)" <<'SQL'
CREATE ROLE node LOGIN PASSWORD :'password';
CREATE DATABASE utxo OWNER node;
CREATE ROLE standby LOGIN REPLICATION PASSWORD :'password';
SELECT pg_create_physical_replication_slot('standby');
-- From the next start on. A commit that was acknowledged is on both, so a standby that is promoted lacks none; while the standby is
-- away commits wait, and the node is not ready.
ALTER SYSTEM SET synchronous_standby_names = 'standby';
SQL
echo 'host replication standby samenet scram-sha-256' >>"$PGDATA/pg_hba.conf"
