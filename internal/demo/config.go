package demo

// credential is what the simulator takes for a GitHub token.
const credential = "demo-credential-3b7c1f"

// configText is the demo's muster.yaml; its gaps are the simulator's address
// and the bounds of the pool. Schedules have leading seconds.
const configText = `# The demo's configuration. A day is a second here.
data_dir: data
embedded: {nats_listen: "127.0.0.1:0", postgres_port: 0}
listen: 127.0.0.1:0
targets:
  - {name: octo,    scope: enterprise/octo,   api_url: "%[1]s", auth: {token_file: github.token}, max_observation_gap: 10s}
  - {name: acme,    scope: org/acme,          api_url: "%[1]s", auth: {token_file: github.token}, max_observation_gap: 10s}
  - {name: widgets, scope: repo/acme/widgets, api_url: "%[1]s", auth: {token_file: github.token}, max_observation_gap: 10s}
  - {name: forge,   scope: repo/acme/forge,   api_url: "%[1]s", auth: {token_file: github.token}, max_observation_gap: 10s, webhook_secret_file: hook.secret}
schedules:
  - {job: sync,    targets: [octo, acme, widgets, forge], cron: "*/2 * * * * *"}
  - {job: enforce, targets: [octo, acme, widgets], cron: "*/5 * * * * *"}
policies: ["*-*.yaml"]
pools:
  - {name: forge, target: forge, labels: [self-hosted, forge], min: %[2]d, max: %[3]d, target_utilisation: 1,
     min_lifetime: 1s, cooldown: {up: 0s, down: 2s}, step: {up: 10, down: 10}}
grants:
  - {hosts: [build-01, build-02, build-03, build-04, build-05], targets: [acme], kinds: [registration, removal], per_hour: 20}
  - {host_prefix: gpu-, targets: [octo], kinds: [registration], per_hour: 20, max_live: 10}
  - {host_prefix: forge-, targets: [forge], kinds: [registration], per_hour: 20, max_live: 10}
retain_days: 1
`

const reaperText = `apiVersion: muster/v1
kind: RunnerPolicy
metadata: {name: reap-long-offline, owner: the demo}
spec:
  enforcement: enforce
  scope: {targets: [octo, acme, widgets]}
  match: runner.status == "offline" && !runner.busy && runner.offline_for > duration("7s")
  exempt: {keep-label: '"keep" in runner.labels'}
  guards:
    inventory: {complete: true, max_age: 10s}
    grace: 3s
    max: {count: 20, percent: 10, window: 1h, on_exceed: halt}
    rate: 120/m
    witnesses: {listings: 3, apart: 4s}
  actions: [{delete_runner: {}}]
  tests:
    - {name: long off, runner: {status: offline, offline_for: 9s}, want: act}
    - {name: just off, runner: {status: offline, offline_for: 5s}, want: keep}
    - {name: busy is safe, runner: {status: offline, busy: true, offline_for: 9s}, want: keep}
    - {name: kept by label, runner: {status: offline, offline_for: 9s, labels: [keep]}, want: keep}
`

const reportText = `apiVersion: muster/v1
kind: RunnerPolicy
metadata: {name: report-missing-team, owner: the demo}
spec:
  enforcement: audit
  scope: {targets: [widgets]}
  match: '!runner.labels.exists(l, l.startsWith("team-"))'
  actions: [{report: {}}]
  tests:
    - {name: no team, runner: {status: online, labels: [linux]}, want: act}
    - {name: a team, runner: {status: online, labels: [linux, team-core]}, want: keep}
`
