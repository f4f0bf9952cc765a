# Two images from one distribution; compose builds both, or by hand:
#   docker build --target server -t weft-server .
#   docker build --target agent  -t weft-agent .
# Both run on x86-64 and on 64-bit ARM. The agent's has no torch and no compiler.
# PIP_ARGS is for an index of your own, such as one with the smaller builds of torch for CPUs.
ARG PYTHON=3.11.11-slim-bookworm

FROM python:${PYTHON} AS source
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_CONSTRAINT=/src/constraints.txt
WORKDIR /src
RUN python -m venv /venv
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY shared shared
COPY edge_agent edge_agent
COPY server server
COPY migrations migrations

FROM source AS server-build
ARG PIP_ARGS=""
RUN /venv/bin/pip install ${PIP_ARGS} '.[server,postgres,s3]'

FROM source AS agent-build
ARG PIP_ARGS=""
RUN /venv/bin/pip install ${PIP_ARGS} .

FROM python:${PYTHON} AS run
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
RUN useradd --uid 10001 --create-home weft && install -d -o weft -m 0700 /data \
    && install -d -o weft -m 0755 /root-of-trust
WORKDIR /data
VOLUME /data

FROM run AS server
COPY --from=server-build /venv /venv
USER 10001
ENV WEFT_DATA_DIR=/data WEFT_HOST=0.0.0.0 WEFT_PORT=8300
EXPOSE 8300
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f'http://127.0.0.1:{os.environ[\"WEFT_PORT\"]}/readyz', timeout=4)"]
CMD ["weft", "serve"]

FROM run AS agent
COPY --from=agent-build /venv /venv
USER 10001
ENV WEFT_AGENT_STATE_DIR=/data
HEALTHCHECK --interval=60s --timeout=20s --start-period=30s --retries=3 \
    CMD ["edge-agent", "status", "--json"]
CMD ["edge-agent", "run"]
