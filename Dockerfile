# headstart with all its extras.
#
#   docker build -t headstart .
#   docker run --rm -it --gpus all --shm-size 8g -v "$PWD":/work headstart pretrain data=my/images model=yolo11n.pt
#
# Without a GPU leave out --gpus all. Files in /work get the user of --user "$(id -u):$(id -g)".
FROM python:3.12-slim

# What OpenCV's wheel needs of the system, and git, whose state a run writes down.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git libgl1 libglib2.0-0 libxcb1 \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/headstart
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
# The versions in pyproject.toml's constraints, which the tests ran with.
RUN pip install --no-cache-dir uv \
    && uv sync --no-dev --all-extras --no-editable --no-cache

# Caches and settings lie where any user may write.
ENV PATH=/opt/headstart/.venv/bin:$PATH \
    HEADSTART_CACHE=/tmp/headstart \
    HOME=/tmp \
    MPLCONFIGDIR=/tmp/matplotlib \
    YOLO_CONFIG_DIR=/tmp/ultralytics

WORKDIR /work
ENTRYPOINT ["headstart"]
CMD ["--help"]
