#!/bin/sh
# One of the services that a bank has, at the loopback: stand-in postgres | redis | s3. PASSWORD is theirs.
set -eu
case "$1" in
postgres)
  data=/var/lib/stand-ins/postgres
  if [ ! -f "$data/PG_VERSION" ]; then
    printf %s "$PASSWORD" > /tmp/password
    initdb -D "$data" -A scram-sha-256 -U postgres --pwfile /tmp/password -E UTF8 >/dev/null
    # A database each: Dagster and MLflow keep their schema's version in a table of the same name.
    for database in dagster mlflow feast; do echo "CREATE DATABASE $database;"; done |
      postgres --single -D "$data" postgres >/dev/null
  fi
  # Asked to end, it would wait for its clients, who are ending too; an interrupt ends their sessions.
  postgres -D "$data" -c listen_addresses=127.0.0.1 -c unix_socket_directories=/tmp & server=$!
  trap 'kill -INT $server; wait $server' TERM INT
  wait $server ;;
redis)
  exec redis-server --bind 127.0.0.1 --port 6379 --requirepass "$PASSWORD" --save "" --dir /tmp ;;
s3)
  moto_server -H 127.0.0.1 -p 9000 & server=$!
  trap 'kill $server' TERM INT
  until curl -fsS -X PUT http://127.0.0.1:9000/bank-loan-assets >/dev/null 2>&1; do sleep 0.2; done
  wait $server ;;
*)
  echo "stand-in postgres | redis | s3" >&2; exit 2 ;;
esac
