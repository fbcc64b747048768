"""Secrets are masked wherever they stand, in whatever notation; what only looks like one stays readable."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replayctl.console import redaction
from replayctl.console.secret_names import secret_kind

CANARY = "c4nary"
KEY_BLOCK = (
    "-----BEGIN OPENSSH PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nc4naryAAA\nc4nary=\n"
    "-----END OPENSSH PRIVATE KEY-----\n"
)

HIDDEN = r"""
MYSQL_PASSWORD=c4nary
PGPASSWORD=c4nary psql -h db
PASSWORD1=c4nary
export DB_PASS='c4nary with words'
AWS_SECRET_ACCESS_KEY=c4nary/ab+c4nary=
AIRFLOW__CORE__FERNET_KEY=c4nary=
PASSWORD=c4nary,c4nary&c4nary;c4nary
fs.s3a.secret.key=c4nary
fs.azure.account.key.acc.blob.core.windows.net=c4nary
spark.hadoop.fs.s3a.access.key   c4nary
--conf spark.hadoop.fs.s3a.secret.key=c4nary --class x
-Djavax.net.ssl.trustStorePassword=c4nary
--password c4nary --user bob
--token=c4nary
--secret-key 'c4nary'
['spark-submit', '--password', 'c4nary', '--name', 'x']
[spark-submit, --conf, spark.x.password=c4nary]
(spark.hadoop.fs.s3a.secret.key,c4nary)
('fs.s3a.secret.key', 'c4nary')
Map(password -> c4nary, x -> y)
{password=c4nary, user=bob}
password => 'c4nary'
|spark.x.password|c4nary|
<name>fs.s3a.secret.key</name><value>c4nary</value>
<password>c4nary</password>
{"refresh_token": "c4nary"}
{\"password\": \"c4nary\"}
{"credentials": "c4nary"}
"secrets": ["c4nary", "b"]
{"auths": {"registry": {"auth": "dTpjNG5hcnk="}}}
{'name': 'DB_PASSWORD', 'value': 'c4nary', 'value_from': None}
password: c4nary
  db_password: "c4nary \" c4nary"
password="c4nary unclosed c4nary
config["password"] = "c4nary"
connect(user="x", password=b'c4nary')
Login(password='c4nary')
API key: c4nary
access key = c4nary
SNOWFLAKE_PWD: c4nary
client_secret=c4nary
CREATE USER a IDENTIFIED BY 'c4nary'
ALTER USER a WITH PASSWORD 'c4nary';
OPTIONS (url 'jdbc:x', password 'c4nary', user 'y')
jdbc:postgresql://h/db?user=u&password=c4nary&ssl=true
sqlserver://h;user=u;password=c4nary;encrypt=true
DefaultEndpointsProtocol=https;AccountName=x;AccountKey=c4nary==;EndpointSuffix=core
postgresql+psycopg2://u:c4nary@h/db
postgresql://u:c4n@c4nary@h/db
amqp://u:c4/c4nary@h/db
https://c4naryc4naryc4naryc4nary@github.com/x
https://x.blob/y?sv=1&sig=c4naryc4naryc4nary%3D&x=1
X-Amz-Signature=c4naryc4naryc4nary
Authorization: Bearer c4narytoken
Authorization: Basic c4nary==
Authorization: c4nary
Proxy-Authorization: Basic c4nary
"Authorization" : "c4nary"
'Authorization': 'Basic c4nary=='
curl -H 'Authorization: Digest username="x", response="c4nary"'
X-Api-Key: c4nary
Set-Cookie: session=c4nary; Path=/
token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjNG5hcnkifQ.c4nary
Invalid user token hf_c4naryc4naryc4nary
Incorrect API key provided: sk-c4naryc4naryc4nary
machine h login bob password c4nary
curl -s -u bob:c4nary http://x
<entry key="db.password">c4nary</entry>
ENV AWS_SECRET_ACCESS_KEY c4nary
CREATE SECRET x (TYPE S3, SECRET 'c4nary')
http://h/login?user=bob&pass=c4nary
Password for 'bob': c4nary
redis://:c4nary@h:6379/0
s3n://AKIAX:c4na/c4nary@bucket/x
WANDB_API_KEY=c4nary
-----BEGIN RSA PRIVATE KEY-----\nc4nary\nc4nary=\n-----END RSA PRIVATE KEY-----\n
"""

SHOWN = """
token_count=5 tokenCount: 7
max_tokens=512 num_tokens: 9 tokens=12
tokenizer=bert-base TOKENIZERS_PARALLELISM=false
pad_token_id=0 eos_token=</s>
tokens: ['the', 'cat']
client token: N/A
client token: Token { kind: YARN_CLIENT_TOKEN, service:  }
PWD=/home/x OLDPWD=/tmp
password_file: /etc/x secretName: my-secret
secret "airflow-config" not found
KeyError: 'token'
unexpected keyword argument 'password'
SecurityManager: authentication disabled; users  with view permissions: Set(alice)
spark.yarn.tokens.hadoopfs.enabled=false spark.authenticate.secret: None
primary_key=user_id cache_key=abc key=12 sort_key: x
key columns keyed by: user_id
GOOGLE_APPLICATION_CREDENTIALS=/secrets/key.json
spark://CoarseGrainedScheduler@host:4040
hdfs://namenode:8020/user/a@b/x
http://host:8080/x?mail=a@b.c
s3a://bucket/key=1/part-0.parquet
password=${DB_PASSWORD} token={{ var.value.x }}
Authentication failed: token expired
Unrecognized token 'abc': was expecting
unexpected token: FOO at line 3
hadoop.security.authorization=true
basic authentication is off, author: bob
from user import password, token
passed: 5 tests; pass: 3; first_pass=2
signature: (Ljava/lang/String;)V
secretKeyRef: {name: x}
{'secret_key_ref': {'key': 'a', 'name': 'b'}}
org.apache.hadoop.security.token.SecretManager: x
HDFS_DELEGATION_TOKEN owner=alice, renewer=yarn
password=password, token=self.token
login(password, user)
created: 2024-01-01 credit=5 increment: 3
"""


@pytest.mark.parametrize("line", HIDDEN.strip().splitlines())
@pytest.mark.parametrize("around", ["{}", "INFO x: é {}\n", "a = 1\n{}\nb = 2\n"])
def test_secrets_are_masked_in_every_notation(line: str, around: str) -> None:
    for output in (redaction.clean(around.format(line)), redaction.mask(around.format(line))):
        assert CANARY not in output
        assert "dTpjNG5hcnk" not in output
        assert "***" in output


@pytest.mark.parametrize("line", SHOWN.strip().splitlines())
def test_text_without_secrets_stays_readable(line: str) -> None:
    assert redaction.clean(line) == line
    assert redaction.clean(f"x\n{line}\ny\n") == f"x\n{line}\ny\n"


def test_what_stands_around_a_secret_stays_readable() -> None:
    output = redaction.clean("jdbc:postgresql://h/db?user=u&password=c4nary&ssl=true (--password c4nary --user bob)")
    assert output == "jdbc:postgresql://h/db?user=u&password=***&ssl=true (--password *** --user bob)"
    assert redaction.clean('{"password": "c4nary", "port": 5432}') == '{"password": "***", "port": 5432}'
    assert redaction.clean("Map(fs.s3a.secret.key -> c4nary, x -> y)") == "Map(fs.s3a.secret.key -> ***, x -> y)"


def test_what_belongs_together_is_masked_over_several_lines() -> None:
    output = redaction.clean(f"before\n{KEY_BLOCK}after\n")
    assert CANARY not in output
    assert output.startswith("before\n-----BEGIN OPENSSH PRIVATE KEY-----\n")
    assert output.endswith("-----END OPENSSH PRIVATE KEY-----\nafter\n")
    cut = KEY_BLOCK.partition("-----END")[0]
    assert redaction.clean(f"{cut}INFO go on\n").endswith("***\nINFO go on\n")
    assert redaction.clean("tls:\n  password: |\n    c4nary\n    c4nary x\n  user: y\n") == (
        "tls:\n  password: |\n    ***\n    ***\n  user: y\n"
    )
    assert redaction.clean("- name: DB_PASSWORD\n  value: c4nary\n- name: X\n") == (
        "- name: DB_PASSWORD\n  value: ***\n- name: X\n"
    )
    assert redaction.clean("x: 1\npassword: c4nary correct horse c4nary\ny: 2") == "x: 1\npassword: ***\ny: 2"
    assert CANARY not in redaction.clean("Authorization:\n\n Basic c4nary")


PIECES = st.sampled_from(
    [
        *("token", "TOKEN", "=", ": ", " ", "\n", "\r\n", "\n\n", "Bearer ", "abcdefgh", "Authorization", "basic", '"'),
        *("https://", "user:", "@host", "password", "secret", "api_key", "_", "x" * 50, "İ", "\t", "\x0b", "\u2028"),
        *(
            "-----BEGIN RSA PRIVATE KEY-----",
            "-----END RSA PRIVATE KEY-----",
            "name",
            "value",
            "'",
            "\\",
            "--",
            "[",
            "|",
        ),
    ]
)


@given(st.lists(PIECES, max_size=60).map("".join))
def test_masks_leave_lines_where_they_are(text: str) -> None:
    assert redaction.mask(text).count("\n") == text.count("\n")


@given(st.lists(PIECES, max_size=20).map("".join), st.lists(PIECES, max_size=20).map("".join))
def test_other_text_around_does_not_uncover_a_secret(before: str, after: str) -> None:
    assert CANARY not in redaction.clean(f"{before}\nMYSQL_PASSWORD={CANARY}\n{after}")


@given(st.integers(0, 12))
def test_a_log_in_pieces_is_masked_like_a_whole_one(cut: int) -> None:
    text = f"one\n{KEY_BLOCK}env:\n- name: DB_PASSWORD\n  value: c4nary\nlast\n"
    lines = text.splitlines(keepends=True)
    cleaner = redaction.LogCleaner()
    output = cleaner.clean("".join(lines[:cut])) + cleaner.clean("".join(lines[cut:]))
    assert output == redaction.clean(text)


def test_a_line_in_pieces_is_not_repeated() -> None:
    pieces = ["one\ntwo words", " and more", " of them\nthree\n", "four\n"]
    cleaner = redaction.LogCleaner()
    assert [cleaner.clean(piece) for piece in pieces] == pieces


def test_a_secret_in_a_long_log_is_masked_where_it_is() -> None:
    line = "INFO DAGScheduler: submitting 10 tasks\n"
    text = line * 1000 + "conf: fs.s3a.secret.key token=c4nary and\nAuthorization:\n\n Basic c4nary\n" + line * 1000
    output = redaction.clean(text)
    assert CANARY not in output
    assert output.count(line) == 2000
    assert output.startswith(line)


def test_values_are_masked_by_the_name_that_stands_elsewhere() -> None:
    assert redaction.mask_value("fs.s3a.secret.key", "c4nary and more") == "***"
    assert redaction.mask_value("token_count", "5") == "5"
    assert redaction.mask_value("airflow.password_file", "/etc/c4nary") == "/etc/c4nary"
    assert redaction.mask_value("url", "http://u:c4nary@h") == "http://***@h"


@given(st.text(alphabet="abcdeikmnoprstuwyzKPST_.-019", max_size=40))
def test_any_name_is_a_secrets_or_none(name: str) -> None:
    kind = secret_kind(name)
    assert kind is None or secret_kind(f"prefix_{name}") is not None or name.lower().startswith(("pass", "key"))


@pytest.mark.parametrize("sign", ["\u202e", "\u2066", "\u2069", "\x9b", "\x00"])
def test_no_sign_turns_a_text_or_steers_the_terminal(sign: str) -> None:
    assert redaction.clean(f"safe{sign}kcol") == "safekcol"
    readable = "שלום, \u200fфыж 👩\u200d🔬"
    assert redaction.clean(readable) == readable
