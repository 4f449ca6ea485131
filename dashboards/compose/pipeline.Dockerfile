# The examples as a service. The context is the root of the repository; versions are the pinned ones of development.
FROM python:3.12.11-slim-bookworm

WORKDIR /app
COPY pyproject.toml README.md LICENSE requirements/dev.txt ./
COPY src src
RUN pip install --no-cache-dir --disable-pip-version-check --constraint dev.txt ".[demo]"
COPY examples examples

USER nobody
ENTRYPOINT ["python", "-m", "examples.as_a_service"]
