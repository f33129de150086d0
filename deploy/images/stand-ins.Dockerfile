# Postgres, Redis and an S3 in memory for a look at the stack on one machine; never for a bank's data.
ARG BASE=python:3.11-slim
FROM ${BASE}
RUN apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    postgresql redis-server curl >/dev/null && rm -rf /var/lib/apt/lists/*
COPY deploy/images/stand-ins.lock /locks/
RUN python -m venv /opt/stand-ins && /opt/stand-ins/bin/pip install -q --no-cache-dir --disable-pip-version-check \
    --require-hashes --only-binary :all: -r /locks/stand-ins.lock
COPY deploy/images/stand-ins.sh /usr/local/bin/stand-in
RUN echo 'loan:x:10001:10001::/tmp:/usr/sbin/nologin' >> /etc/passwd && echo 'loan:x:10001:' >> /etc/group
ENV PATH=/opt/stand-ins/bin:/usr/lib/postgresql/15/bin:$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
ENTRYPOINT ["sh", "/usr/local/bin/stand-in"]
