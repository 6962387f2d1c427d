-- The outbox holds every change, not only final ones: what a manager has committed and not published before it died is
-- published by another as it was. Without them, a row stands for the present state of its tasks.
ALTER TABLE outbox
    ADD COLUMN statuses  task_status[],
    ADD COLUMN attempts  integer[],
    ADD COLUMN revisions integer[];
