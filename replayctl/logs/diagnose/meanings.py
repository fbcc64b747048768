"""Explanations of known exceptions and messages, with advice.

Rules are matched with `name: message`, for Java and Python alike; the first that fits counts.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

_MORE_MEMORY = "Raise spark.{side}.memory, or process less data at once."
MORE_OVERHEAD = (
    "Python workers and native libraries need memory outside the Java heap: raise spark.{side}.memoryOverhead"
    " or spark.{side}.memory, or process less data at once."
)
_ADD_JAR = "add it with --jars or --packages (spark.jars, spark.jars.packages), for this version of Spark and Scala."
_JAVA_TOO_NEW = (
    "This Spark or one of its jars is older than the Java on the node: set JAVA_HOME to a Java that it supports, or"
    " open the package with --add-opens or --add-exports in spark.{side}.extraJavaOptions."
)
_NATIVE = (
    "A native library failed: check that its version fits the node and the packed environment, and that it has"
    " enough memory outside the Java heap (spark.{side}.memoryOverhead)."
)


class Meaning(NamedTuple):
    """The explanation of a message.

    `memory`: out of memory. `setting`: a limit was reached that a setting raises. `complete`: the message is more
    specific than its cause.
    """

    advice: str
    memory: bool = False
    setting: bool = False
    complete: bool = False


UNKNOWN = Meaning("")

_OF_MEMORY = {
    r"CUDA(?: error:)? out of memory|CUDA_ERROR_OUT_OF_MEMORY": (
        "The memory of the GPU ran out: use smaller batches or a smaller model."
    ),
    r"unable to create (?:new )?native thread|can't start new thread|pthread_create failed": (
        "The node or the container may not start more threads; ask for fewer cores (spark.{side}.cores,"
        " OMP_NUM_THREADS) or a higher limit of processes (ulimit -u)."
    ),
    r"OutOfMemoryError.*(?:Direct buffer|Metaspace|Compressed class)": (
        "The JVM ran out of memory outside the heap: raise spark.{side}.memoryOverhead, and"
        " -XX:MaxDirectMemorySize or -XX:MaxMetaspaceSize in spark.{side}.extraJavaOptions if they are set."
    ),
    r"OutOfMemoryError.*GC overhead": "The JVM spent most of its time collecting garbage: its heap is too small. "
    + _MORE_MEMORY,
    r"OutOfMemoryError.*Requested array size exceeds": (
        "One row, group or partition is larger than 2 GB: use more partitions, or collect less into one value."
    ),
    r"OutOfMemoryError|Unable to acquire \d+ bytes of memory": "The Java heap is too small. " + _MORE_MEMORY,
    r"^(?:\w+\.)*_?(?:Array)?MemoryError|bad_alloc|(?:Cannot|Unable to) allocate (?:memory|[\d.]+ [KMGT]i?B)|"
    r"DefaultCPUAllocator: can't allocate|ArrowMemoryError|insufficient memory for the Java": MORE_OVERHEAD,
}
# Limits that a setting raises. The messages name them, or say by themselves what is wrong.
_OF_SETTINGS = {
    r"Not enough memory to build and broadcast": (
        "The table that is broadcast does not fit into the driver: raise spark.driver.memory, or set"
        " spark.sql.autoBroadcastJoinThreshold=-1."
    ),
    r"bigger than (?:spark\.driver\.maxResultSize|local result size limit)|bigger than maxResultSize": (
        "Too much is collected on the driver: write it instead of collecting it, or raise spark.driver.maxResultSize."
    ),
    r"Could not execute broadcast in|Broadcast(?:Exchange)?.{0,80}timed? ?out": (
        "The smaller side of a join took too long: raise spark.sql.broadcastTimeout, or switch such joins off with"
        " spark.sql.autoBroadcastJoinThreshold=-1."
    ),
    r"Cannot broadcast the table (?:that is larger|over)|BROADCAST_TABLE": (
        "The table is too large to be broadcast: set spark.sql.autoBroadcastJoinThreshold=-1, or drop the hint."
    ),
    r"Kryo serialization failed|kryoserializer\.buffer|KryoException: Buffer overflow": (
        "One value is larger than Kryo's buffer: raise spark.kryoserializer.buffer.max (at most 2047m)."
    ),
    r"spark\.rpc\.message\.maxSize|exceeds max allowed: spark\.": (
        "A task or its result is too large: broadcast large values instead of enclosing them, use more partitions, or"
        " raise spark.rpc.message.maxSize."
    ),
    r"Too large frame|larger than 2 ?GB|Size exceeds Integer\.MAX_VALUE": (
        "A block of shuffled data is larger than 2 GB: use more partitions (spark.sql.shuffle.partitions), or fix the"
        " skewed key."
    ),
    r"(?:max|maximum) allowable number of? ?times.*Fetch failure|spark\.stage\.maxConsecutiveAttempts": (
        "Shuffle files were lost again and again; find out why executors ended."
    ),
    r"(?:Requested|Required) (?:executor|AM|driver) memory|Required (?:executor|AM) memory": (
        "Ask for less memory, or ask the cluster's owner to raise yarn.scheduler.maximum-allocation-mb."
    ),
    r"System memory \d+ must be at least": "Raise spark.driver.memory or --driver-memory (at least 512m).",
    r"Executor memory \d+ must be at least": "Raise spark.executor.memory or --executor-memory (at least 512m).",
    r"could not bind on (?:a random free )?port|Can't assign requested address|Address already in use|BindException": (
        "The port is taken or the address is not the node's: choose another port, or raise spark.port.maxRetries;"
        " spark.driver.bindAddress sets the address."
    ),
    r"Futures timed out after|Cannot receive any reply .{0,200} in \d+|RpcTimeoutException": (
        "The other side did not answer in time, often because it was busy collecting garbage: give it more memory, or"
        " raise spark.network.timeout."
    ),
}
# Messages of Spark to its users, which are more specific than their causes.
_COMPLETE = {
    r"Parquet column cannot be converted|PARQUET_COLUMN_DATA_TYPE|Failed merging schema|CANNOT_MERGE_SCHEMAS": (
        "The files have another type for this column than the schema or the other files: read them with their own"
        " type and cast, or write the old ones again."
    ),
    r"Cannot run program": (
        "The program is not on the node, or may not be executed: check the path (PYSPARK_PYTHON, spark.pyspark.python)"
        " and the packed environment (--archives, spark.archives)."
    ),
    r"PYTHON_VERSION_MISMATCH|Python in worker has different version": (
        "Driver and executors run different Pythons; set PYSPARK_PYTHON to the packed one for both."
    ),
    r"Python worker failed to connect back": (
        "The Python of the executors did not start in time: check PYSPARK_PYTHON and that it starts on the node."
    ),
    r"(?:data source|DATA_SOURCE_NOT_FOUND).{0,40}: ?\S+|Failed to find data source|No suitable driver": (
        "The jar of this data source is missing: " + _ADD_JAR
    ),
    r"IllegalAccessError: .*does not export|InaccessibleObjectException|does not \"?opens? ": _JAVA_TOO_NEW,
    r"SafeModeException|(?:Name ?node|NameNode) is in safe mode": (
        "HDFS is in safe mode and can only be read: wait until it leaves it, or ask its owner to check for missing"
        " blocks or full disks (hdfs dfsadmin -safemode get)."
    ),
    r"Output directory .{1,300} already exists|PATH_ALREADY_EXISTS|path .{1,300} already exists|FileAlreadyExists": (
        "Write elsewhere, or use mode('overwrite')."
    ),
    r"Cannot overwrite a path that is also being read|UNSUPPORTED_OVERWRITE": (
        "Write to another path, then move it; Spark reads while it writes."
    ),
    r"CONTEXT_ONLY_VALID_ON_DRIVER|SparkContext should only be created and accessed on the driver"
    r"|reference SparkContext from a broadcast": (
        "A function of a task uses spark or a DataFrame: collect what it needs on the driver first."
    ),
    r"Task not serializable|PicklingError|[Cc]an(?:no|')t pickle|Could not serialize object": (
        "A function of a task encloses an object that cannot be sent: make it inside the function, or send plain data."
    ),
    r"'JavaPackage' object is not callable": ("A jar with the Java half of this library is missing: " + _ADD_JAR),
}
_OTHERS = {
    r"UNRESOLVED_COLUMN|cannot resolve '|Cannot resolve column": "Check the column's name against the data's schema.",
    r"TABLE_OR_VIEW_NOT_FOUND|Table or view not found|SCHEMA_NOT_FOUND|NoSuchTable|NoSuchDatabase": (
        "Check the name of the table, and that the application sees the metastore (enableHiveSupport, hive-site.xml)."
    ),
    r"SessionHiveMetaStoreClient|meta ?store|TTransportException": (
        "Hive's metastore cannot be reached: check hive.metastore.uris in hive-site.xml, as seen from the node."
    ),
    r"Failed to create (?:a temp directory|(?:any )?local dir)": (
        "The local folders of the node are full or not writable (spark.local.dir, yarn.nodemanager.local-dirs)."
    ),
    r"PARSE_SYNTAX_ERROR|ParseException": "The SQL text has an error where the message points.",
    r"DIVIDE_BY_ZERO|CAST_INVALID_INPUT|ARITHMETIC_OVERFLOW|CAST_OVERFLOW": (
        "The data holds a value that the expression cannot take; use the try_ form of the function, or set"
        " spark.sql.ansi.enabled=false to get nulls."
    ),
    r"Disk quota exceeded|DSQuotaExceeded|NSQuotaExceeded|QuotaExceeded": (
        "A quota is full: remove what is no longer used, or ask for a higher one (hdfs dfs -count -q FOLDER)."
    ),
    r"No space left on device": (
        "The disk is full: free some space. Spark also needs it for shuffle files and spills (spark.local.dir)."
    ),
    r"Too many open files": "Raise the limit of open files (ulimit -n), or use fewer partitions and open fewer files.",
    r"is not a Parquet file|CANNOT_READ_FILE_FOOTER|Could not read footer|corrupt(?:ed)? (?:footer|file)": (
        "The file is damaged, incomplete or not Parquet: remove it, or read only what the writer has completed."
    ),
    r"\.jar (?:does not exist|not found)": "The jar does not exist: check --jars and spark.jars.",
    r"Path does not exist|PATH_NOT_FOUND|FileNotFound|NoSuchFileException|InvalidInputException|File does not exist": (
        "Check the path, the file system in front of it, and whether the step that writes it has run."
    ),
    r"AccessControlException|Permission denied: user=|AccessDeniedException|Access Denied|403 Forbidden"
    r"|Status Code: 403": (
        "The application's user may not do this; change the owner or the mode of the folder, use other credentials, or"
        " write elsewhere."
    ),
    r"NoCredentialsError|Unable to load (?:AWS )?credentials|NoAuthWithAWSException": (
        "No credentials were given for this storage: set them for driver and executors."
    ),
    r"PermissionError|Permission denied": "The application's user may not read or write this file or folder.",
    r"ModuleNotFoundError|No module named": (
        "The packed environment or the wheels lack this module; add it there (--archives, --py-files), not on the"
        " driver's machine."
    ),
    r"^(?:\w+\.)*ImportError|cannot open shared object file": (
        "The packed environment has another version of this library, or lacks a native one."
    ),
    r"UnsupportedClassVersionError": (
        "A jar was compiled for a newer Java than the node has; take a jar for its Java, or set JAVA_HOME"
        " (spark.executorEnv.JAVA_HOME, spark.yarn.appMasterEnv.JAVA_HOME)."
    ),
    r"ClassNotFoundException|NoClassDefFoundError|Could not find or load main class|Failed to load class": (
        "A jar is missing: " + _ADD_JAR
    ),
    r"NoSuchMethodError|NoSuchFieldError|AbstractMethodError|IncompatibleClassChangeError|IllegalAccessError": (
        "Two versions of a jar are mixed, or a jar is for another Spark or Scala; see spark.jars and --packages."
    ),
    r"UnsatisfiedLinkError": "A native library is missing on the node, or is for another platform or Java.",
    r"unresolved dependency|module not found: ": (
        "A package could not be fetched: check its coordinates and the repositories (spark.jars.repositories), or"
        " send the jar along with --jars."
    ),
    r"UnknownHostException|Name or service not known|Temporary failure in name resolution|nodename nor servname": (
        "The node cannot resolve this host name; check its spelling and whether the cluster knows it."
    ),
    r"Connection refused|ConnectionRefusedError|NoRouteToHost|Network is unreachable": (
        "Nothing listens at this address, or a firewall is between; check host and port as seen from the node."
    ),
    r"[Cc]onnect(?:ion|)? ?timed out|ConnectTimeout|SocketTimeoutException|ReadTimeout": (
        "The other side did not answer in time; check host, port and firewall as seen from the node."
    ),
    r"CERTIFICATE_VERIFY_FAILED|SSLHandshakeException|PKIX path building": (
        "The certificate of the other side is not trusted on the node; add its authority to the trust store."
    ),
    r"StackOverflowError": (
        "The plan or lineage is too deep, as with many iterations of ALS: set a checkpoint folder and interval,"
        " or raise -Xss in spark.{side}.extraJavaOptions."
    ),
    r"MetadataFetchFailed|FetchFailed|Missing an output location for shuffle": (
        "Shuffle files were lost, usually with the executor that had them; find out why it ended."
    ),
    r"Delta(?:Concurrent\w+)|ConcurrentAppendException|CommitFailedException|OptimisticLock": (
        "Another application wrote to the same table at the same time; run this one again."
    ),
    r"(?:token|Token)\b.{0,200}(?:is|has) expired|InvalidToken|(?:cannot|can't) be found in cache|ExpiredToken": (
        "The token has expired: pass the application its keytab (--principal, --keytab), or restart it."
    ),
    r"GSSException|Kerberos|LoginException|Client cannot authenticate via|SaslException": (
        "The Kerberos ticket is missing or has expired: run kinit, or pass the application --principal and --keytab."
    ),
    r"Connection from \S+ closed|ExecutorLostFailure|Remote RPC client disassociated|Executor.{0,20} is lost": (
        "A node or an executor ended while others needed it; see its own log; often it ran out of memory."
    ),
    r"can't open file": "Check that the file was sent along (--py-files, --files) and its path.",
    r"Py4JException: (?:Method|Constructor) .{1,400} does not exist|does not exist in the JVM": (
        "Python and Java halves have different versions, or a jar is missing: the pyspark package must be the cluster's"
        " Spark; add the jar with --jars or --packages."
    ),
    r"Py4JError: An error occurred while calling .{1,200}\. Trace": "The Java half refused the call; see its message.",
    r"BarrierJobSlotsNumberCheckFailed|BarrierJobUnsupported|barrier execution mode": (
        "A barrier stage needs a free core for each of its partitions: use fewer partitions, or more executors."
    ),
    r"(?:Network init|Binding port|Socket (?:send|recv|connect)).{0,100}(?:failed|error)": (
        "LightGBM's workers did not find each other, usually because one of them failed first; look at the other"
        " executors, or set defaultListenPort to a free range."
    ),
    r"Fatal Python error|fatal error has been detected|Segmentation fault|Assertion [`'].{1,300} failed"
    r"|terminate called|what\(\):|free\(\): |double free|malloc\(\)|munmap_chunk|stack smashing"
    r"|corrupted (?:size|double)|\[Fatal\]|pure virtual method": _NATIVE,
    r"error while loading shared libraries|cannot execute binary file|Exec format error": (
        "The program is for another system, or lacks a library on the node; pack the environment on the same system."
    ),
    r"command not found|No such file or directory|: not found$": (
        "The program or file is not on the node; check the path and the packed environment (--archives)."
    ),
    r"JAVA_HOME is not set|Could not create the Java Virtual|Unrecognized (?:VM )?option|Invalid maximum heap": (
        "Java could not be started: check JAVA_HOME and spark.{side}.extraJavaOptions."
    ),
    r"CalledProcessError": "See the output of that command above.",
    r"\.py: error: ": "The arguments of the program are wrong; see its --help.",
    r"Python worker exited unexpectedly": (
        "The Python process of a task crashed or was killed, often for memory (spark.executor.memoryOverhead) or by a"
        " native library; spark.python.worker.faulthandler.enabled=true shows where."
    ),
    r"Unseen label|contains? (?:unseen|null)|Encountered null while assembling": (
        "The data holds values that the fitted stage does not know; set its handleInvalid to skip or keep."
    ),
}
JAVA_SIDE_DIED = "The Java half of the driver died first; find the reason there; often it ran out of memory."
_RULES = tuple(
    (re.compile(pattern), Meaning(advice, memory, setting, complete))
    for rules, memory, setting, complete in (
        (_OF_SETTINGS, False, True, True),
        (_OF_MEMORY, True, False, False),
        (_COMPLETE, False, False, True),
        (_OTHERS, False, False, False),
    )
    for pattern, advice in rules.items()
)


def side(driver: bool) -> str:
    """The process whose settings `{side}` stands for in an explanation."""
    return "driver" if driver else "executor"


@lru_cache(maxsize=256)
def meaning(text: str, *, driver: bool) -> Meaning:
    """The explanation of a message; UNKNOWN without one."""
    for pattern, known in _RULES:
        if pattern.search(text):
            return known._replace(advice=known.advice.replace("{side}", side(driver)))
    return UNKNOWN
