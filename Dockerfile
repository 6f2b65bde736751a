# vaeguard in a container, for scoring and denoising with exported models, as an ordinary user:
#   docker build -t vaeguard .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/data" vaeguard denoise scans/
# For a GPU:
#   docker build -t vaeguard-gpu --build-arg ENGINE=gpu .
#   docker run --rm --gpus all --user "$(id -u):$(id -g)" -v "$PWD:/data" vaeguard-gpu score images/ -m model.onnx
# ENGINE=cpu,fit can train, too, and is 5 GB larger.
FROM python:3.13-slim AS wheels
WORKDIR /source
RUN pip install --no-cache-dir build
COPY . .
RUN python .ci/wheels /wheels

FROM python:3.13-slim
ARG ENGINE=cpu
ENV PYTHONDONTWRITEBYTECODE=1 VAEGUARD_CACHE=/tmp/vaeguard NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY constraints.txt /tmp/constraints.txt
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels \
    pip install --no-cache-dir --constraint /tmp/constraints.txt "$(ls /wheels/vaeguard_runtime-*.whl)[$ENGINE]" && \
    useradd --create-home vaeguard
USER vaeguard
WORKDIR /data
# The build fails unless the command starts and every package answers.
RUN vaeguard --version && vaeguard doctor
ENTRYPOINT ["vaeguard"]
CMD ["--help"]
