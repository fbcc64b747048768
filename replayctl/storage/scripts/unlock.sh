# Gives the lock back, if it is still ours. $dags $owner $team $token
go "$dags" || fail "the DAG folder $dags does not exist or is closed to you" 66
if is_folder "$STORE/$owner"; then
    enter "$STORE"
    enter "$owner"
    ! is_held || rm -f .lock
    # What an interrupted attempt to take it has left.
    discard .lock."$token"*
fi
echo "whole"
