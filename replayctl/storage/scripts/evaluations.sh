# Reports what the evaluations of a namespace have for MLflow. Writes nothing. $artifacts $owner
# Tasks write there under names of their own, so files of any user count; links do not.
# shellcheck disable=SC2016  # a command for the reader, not for the shell
go "$artifacts" || fail "the folder of artifacts $artifacts does not exist or is not accessible to you" 66 \
    'run `replayctl settings show` to check folders.artifacts'
if is_there "$owner"; then
    enter "$owner"
    base=$here
    for dataset in *; do
        may_enter "$dataset" || continue
        enter "$dataset"
        if may_enter evaluate; then
            enter evaluate
            evaluations=$here
            for identity in *; do
                case $identity in *[!0-9a-f]*) continue ;; esac
                may_enter "$identity" || continue
                enter "$identity"
                ! is_file _SUCCESS || ! is_file mlflow.json || emit evaluation "$identity" mlflow.json
                go "$evaluations" || fail "$evaluations was moved meanwhile"
            done
        fi
        go "$base" || fail "$base was moved meanwhile"
    done
fi
echo "whole"
