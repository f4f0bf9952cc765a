# Two images from one distribution:
#   docker build --target server -t weft-server .
#   docker build --target agent  -t weft-agent .
FROM python:3.11-slim AS base
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY shared shared
COPY edge_agent edge_agent
COPY server server
COPY migrations migrations

FROM base AS server
RUN pip install --no-cache-dir -c constraints.txt '.[server]'
RUN useradd --create-home weft && install -d -o weft /data
USER weft
WORKDIR /data
ENV WEFT_DATA_DIR=/data WEFT_HOST=0.0.0.0
EXPOSE 8300
CMD ["weft", "serve"]

FROM base AS agent
RUN pip install --no-cache-dir -c constraints.txt .
RUN useradd --create-home weft && install -d -o weft /data
USER weft
WORKDIR /data
CMD ["edge-agent", "run"]
