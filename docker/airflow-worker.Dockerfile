# The Airflow worker: runs tasks of the KubernetesExecutor and submits Spark applications. Airflow and the workloads have an
# environment each, because they need different versions of the same packages. Layers stand in the order of how often they change.
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}

# Java for Spark, tini to pass signals on, libgomp for LightGBM; each only where the base lacks it.
RUN set -eu; \
    packages=""; \
    command -v java >/dev/null || packages="$packages openjdk-17-jre-headless"; \
    command -v tini >/dev/null || packages="$packages tini"; \
    command -v ps >/dev/null || packages="$packages procps"; \
    ls /usr/lib/*/libgomp.so.1 >/dev/null 2>&1 || packages="$packages libgomp1"; \
    python3 -c 'import ensurepip' 2>/dev/null || packages="$packages python3-venv"; \
    if [ -n "$packages" ]; then \
        apt-get update -qq; \
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >/dev/null; \
        rm -rf /var/lib/apt/lists/*; \
    fi; \
    java=$(readlink -f "$(command -v java)"); \
    ln -s "${java%/bin/java}" /opt/java; \
    useradd --uid 50000 --gid 0 --no-create-home --home-dir /opt/airflow airflow

COPY requirements/workload-spark.txt /opt/requirements/
RUN python3 -m venv /opt/workload \
    && /opt/workload/bin/pip install --quiet --no-deps --no-cache-dir --disable-pip-version-check -r /opt/requirements/workload-spark.txt \
    && ln -s "$(/opt/workload/bin/python -c 'import pyspark; print(pyspark.__path__[0])')" /opt/spark

# An archive of Spark's classes (160 MB, 41 MB in the registry) saves each JVM 3 seconds of CPU time. A JVM takes it only with the
# class path that it was made with: spelled out, because Spark's own jars/* has another order on each file system.
COPY spark_training.py /opt/spark-classes/
RUN set -eu; \
    cd /opt/spark-classes; \
    export JAVA_HOME=/opt/java PYSPARK_PYTHON=/opt/workload/bin/python PYTHONDONTWRITEBYTECODE=1; \
    export SPARK_HOME=/opt/spark SPARK_LOCAL_IP=127.0.0.1 SPARK_LOCAL_DIRS=/tmp/spark; \
    paths=$(printf '%s:' /opt/spark/jars/*.jar); \
    printf '%s' "${paths%:}" > spark.classpath; \
    mkdir /tmp/spark; \
    /opt/spark/bin/spark-submit --master 'local[1]' --driver-memory 1g --driver-class-path "${paths%:}" \
        --conf spark.ui.enabled=false --conf spark.sql.shuffle.partitions=2 \
        --conf spark.sql.execution.arrow.pyspark.enabled=true \
        --conf 'spark.driver.extraJavaOptions=-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xss16m -XX:ArchiveClassesAtExit=/opt/spark-classes/spark.jsa' \
        spark_training.py /tmp/spark >/tmp/spark/log 2>&1 \
    || { tail -n 20 /tmp/spark/log; echo "no archive of Spark's classes: Spark's steps start slower"; rm -f spark.jsa; }; \
    rm -rf /tmp/*

COPY requirements/airflow.txt /opt/requirements/
RUN python3 -m venv /opt/airflow-venv \
    && /opt/airflow-venv/bin/pip install --quiet --no-deps --no-cache-dir --disable-pip-version-check -r /opt/requirements/airflow.txt

COPY requirements/airflow-database.txt /opt/requirements/
RUN /opt/airflow-venv/bin/pip install --quiet --no-deps --no-cache-dir --disable-pip-version-check -r /opt/requirements/airflow-database.txt

# Airflow's Python must not see Spark's packages nor the other way round: no PYTHONPATH.
ENV JAVA_HOME=/opt/java \
    SPARK_HOME=/opt/spark \
    HADOOP_CONF_DIR=/etc/hadoop \
    PYSPARK_PYTHON=/opt/workload/bin/python \
    REPLAYCTL_SPARK_CLASSES=/opt/spark-classes/spark.jsa \
    AIRFLOW_HOME=/opt/airflow \
    PYTHONDONTWRITEBYTECODE=1 \
    PATH=/opt/airflow-venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/spark/bin

RUN mkdir -p /opt/airflow/dags /opt/airflow/logs /opt/spark_data \
    && chown -R 50000:0 /opt/airflow && chmod -R g=u /opt/airflow
WORKDIR /opt/airflow
ENTRYPOINT ["tini", "--"]

# Where Hadoop and YARN are, for images that stand by themselves; a cluster usually mounts its own files over them.
ARG DEFAULT_FS=file:///
ARG RESOURCEMANAGER=yarn-resourcemanager.spark-lama-exps.svc.cluster.local
COPY conf/core-site.xml conf/yarn-site.xml /etc/hadoop/
RUN sed -i "s|@DEFAULT_FS@|${DEFAULT_FS}|" /etc/hadoop/core-site.xml \
    && sed -i "s|@RESOURCEMANAGER@|${RESOURCEMANAGER}|" /etc/hadoop/yarn-site.xml

USER 50000
