#!/bin/sh
# A standby of postgres-1: copied from it at the first start.
set -eu
umask 077
printf 'postgres-1:5432:*:standby:%s\n' "$(cat /run/secrets/store-password)" >/tmp/pgpass
if [ ! -e "$PGDATA" ]; then
    # A copy that was cut short begins anew.
    rm -rf "$PGDATA.part"
    pg_basebackup --pgdata="$PGDATA.part" --write-recovery-conf --slot=standby --checkpoint=fast \
        --dbname='host=postgres-1 user=standby application_name=standby passfile=/tmp/pgpass'
    mv "$PGDATA.part" "$PGDATA"
fi
exec postgres
