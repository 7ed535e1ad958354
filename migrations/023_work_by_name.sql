-- When a runner last had work is read from these alone: by its id, unless the
-- job names another, and by its name.
DROP INDEX muster.workflow_job_runner;
CREATE INDEX workflow_job_runner ON muster.workflow_job (target, runner_id, completed_at) INCLUDE (runner_name) WHERE runner_id <> 0;
CREATE INDEX workflow_job_name ON muster.workflow_job (target, runner_name, completed_at) WHERE runner_name <> '' AND completed_at IS NOT NULL;
