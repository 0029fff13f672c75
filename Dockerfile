# Winnow with its default weights. The parts that change least are installed first; all but Winnow itself by the
# hashes of requirements.lock, which `make lock` makes.
FROM python:3.11-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/winnow
ENV PATH=/opt/winnow/bin:$PATH
WORKDIR /src
COPY requirements.lock ./
RUN pip install --no-cache-dir --no-deps --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY models models
COPY indexer indexer
COPY service service
RUN pip install --no-cache-dir --no-deps --no-build-isolation . && python -c "import service.app, service.server"

FROM python:3.11-slim
RUN useradd --uid 10001 --create-home winnow && install --directory --owner winnow /data
COPY --from=build /opt/winnow /opt/winnow
ENV PATH=/opt/winnow/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    WINNOW_DATA_DIR=/data \
    WINNOW_HOST=0.0.0.0 \
    WINNOW_PORT=8080
USER 10001
WORKDIR /home/winnow
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ[\"WINNOW_PORT\"]}/livez', timeout=4)"]
ENTRYPOINT ["winnow"]
CMD ["serve"]
