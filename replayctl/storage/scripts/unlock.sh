# Releases the lock if it is still ours. $dags $owner $team $token
go "$dags" || fail "the DAG folder $dags does not exist or is not accessible to you" 66
if is_folder "$STORE/$owner"; then
    enter "$STORE"
    enter "$owner"
    ! is_held || rm -f .lock
    # Leftovers of an interrupted attempt to acquire it.
    discard .lock."$token"*
fi
echo "whole"
