# One image for every service: SERVICE names the package that runs. The lock is one file for all of the
# project, so its test tools are in the image too.
FROM python:3.11.14-slim-bookworm

RUN useradd --uid 10001 --no-create-home millrace && install -d -o millrace -g millrace /data
WORKDIR /app

COPY requirements.lock ./
RUN pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.lock

COPY contracts/ contracts/
COPY broker/ broker/
COPY edge/ edge/
COPY agent_runner/ agent_runner/
COPY tool_runner/ tool_runner/
COPY event_ingest/ event_ingest/
COPY millrace/ millrace/

USER millrace
ENV PYTHONUNBUFFERED=1 SERVICE=edge MILLRACE_HOST=0.0.0.0 MILLRACE_PORT=8000
CMD ["sh", "-c", "exec python -m \"$SERVICE\""]
