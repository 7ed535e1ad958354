package githubsim

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

// Version is the server version of a Sim that was not told another.
const Version = "3.1.0"

// DotCom is the Version that stands for github.com.
const DotCom = "dotcom"

// profile is what the versions of GitHub differ in. The sources are the
// published API descriptions, and what was seen and reported of live servers.
type profile struct {
	name    string // as a Version names it
	version string // as the server names it; empty: it does not

	docs     string // the root of the documentation
	flatDocs bool   // one page for all scopes

	groups        bool // runner_group_id on runners
	ephemeral     bool // that field on runners
	runnerVersion bool // the field version on runners
	errorStatus   bool // the status as a field of error answers

	labelRoutes bool // …/runners/{id}/labels
	jit         bool // …/generate-jitconfig
	nameFilter  bool // ?name= on lists is heeded
	workflowJob bool // the webhook of that name is sent
	waiting     bool // that action of it is

	busyStatus int    // of the DELETE of a busy runner
	busyText   string // with its name for %s
	order      Order
	systems    map[string]string // what the field os says of linux, windows and macos
	labelIDs   bool              // or 0 for all

	forget          time.Duration // when a runner that does not connect is removed
	forgetEphemeral time.Duration

	application string // version of the runner application on offer
	builds      []build
	scope       string // what a personal token needs for an enterprise
}

// build is a runner application on offer.
type build struct{ os, arch, ending string }

const (
	busyOld = `Bad request - Runner "%s" is still running a job"` // the stray quote is GitHub's
	busyNew = `Bad request - Runner %s is currently running a job and cannot be deleted.`

	day = 24 * time.Hour
)

var (
	lowerSystems = map[string]string{"linux": "linux", "windows": "windows", "macos": "macos"}
	upperSystems = map[string]string{"linux": "Linux", "windows": "Windows", "macos": "macOS"}
	// What the runner's own platform says, the trailing blank included.
	longSystems = map[string]string{"linux": "Ubuntu 22.04.5 LTS", "windows": "Microsoft Windows 10.0.17763 ", "macos": "macOS 14.5.0"}

	oldBuilds = []build{{"osx", "x64", "tar.gz"}, {"linux", "x64", "tar.gz"}, {"linux", "arm", "tar.gz"}, {"win", "x64", "zip"}, {"linux", "arm64", "tar.gz"}}
	newBuilds = append(slices.Clone(oldBuilds), build{"osx", "arm64", "tar.gz"}, build{"win", "arm64", "zip"})
)

// profiles are all there are, oldest first; each begins as the one before it.
var profiles = func() []profile {
	p := profile{
		name: "3.1", busyStatus: http.StatusInternalServerError, busyText: busyOld, order: OrderID, systems: lowerSystems, labelIDs: true,
		forget: 30 * day, forgetEphemeral: 30 * day, application: "2.277.1", builds: oldBuilds, scope: "admin:enterprise",
	}
	all := []profile{p}
	since := func(name string, change func(*profile)) {
		p.name = name
		change(&p)
		all = append(all, p)
	}
	since("3.4", func(p *profile) {
		p.labelRoutes, p.workflowJob, p.scope = true, true, "manage_runners:enterprise"
		p.busyStatus, p.application = http.StatusUnprocessableEntity, "2.286.1"
	})
	since("3.7", func(p *profile) {
		p.groups, p.systems, p.builds, p.application = true, upperSystems, newBuilds, "2.298.2"
		p.forget, p.forgetEphemeral = 14*day, day
	})
	since("3.10", func(p *profile) {
		p.waiting = true
		p.jit, p.flatDocs, p.busyText, p.application = true, true, busyNew, "2.304.0"
	})
	since("3.11", func(p *profile) {
		p.nameFilter, p.systems, p.application = true, longSystems, "2.309.0"
	})
	since("3.19", func(p *profile) {
		p.ephemeral, p.runnerVersion, p.errorStatus, p.order, p.application = true, true, true, OrderName, "2.329.0"
	})
	since(DotCom, func(p *profile) {
		p.labelIDs, p.systems = false, upperSystems
	})
	for i := range all {
		p := &all[i]
		p.docs = "https://docs.github.com/rest"
		if p.name != DotCom {
			p.version, p.docs = p.name+".0", "https://docs.github.com/enterprise-server@"+p.name+"/rest"
		}
	}
	return all
}()

// Versions are the versions of GitHub that a Sim can be, oldest first.
func Versions() []string {
	names := make([]string, len(profiles))
	for i, p := range profiles {
		names[i] = p.name
	}
	return names
}

// profileOf finds a profile by the name of its version, with or without the
// patch number 0. Empty means Version.
func profileOf(version string) (profile, error) {
	if version == "" {
		version = Version
	}
	for _, p := range profiles {
		if version == p.name || version == p.version {
			return p, nil
		}
	}
	return profile{}, fmt.Errorf("github simulator: version %q: want one of %s", version, strings.Join(Versions(), ", "))
}

// CheckVersion refuses a Config.Version that there is no profile of.
func CheckVersion(version string) error {
	_, err := profileOf(version)
	return err
}

// Order is how lists are sorted.
type Order string

const (
	OrderVersion Order = ""     // as the version does it
	OrderID      Order = "id"   // rising
	OrderName    Order = "name" // by bytes
)

// Toggle is a choice that a version makes, unless it is made here.
type Toggle string

const (
	AsVersion Toggle = ""
	On        Toggle = "on"
	Off       Toggle = "off"
)

func (t Toggle) over(version bool) bool {
	if t == AsVersion {
		return version
	}
	return t == On
}

// docsOf is the address of an operation's documentation.
func (p *profile) docsOf(q query) string {
	anchor := map[operation]string{
		opList:              "list-self-hosted-runners-for-",
		opDownloads:         "list-runner-applications-for-",
		opRegistrationToken: "create-a-registration-token-for-",
		opRemovalToken:      "create-a-remove-token-for-",
		opGet:               "get-a-self-hosted-runner-for-",
		opDelete:            "delete-a-self-hosted-runner-from-",
		opJITConfig:         "create-configuration-for-a-just-in-time-runner-for-",
		opLabels:            "list-labels-for-a-self-hosted-runner-for-",
		opAddLabels:         "add-custom-labels-to-a-self-hosted-runner-for-",
		opSetLabels:         "set-custom-labels-for-a-self-hosted-runner-for-",
		opClearLabels:       "remove-all-custom-labels-from-a-self-hosted-runner-for-",
		opRemoveLabel:       "remove-a-custom-label-from-a-self-hosted-runner-for-",
	}[q.op]
	if anchor == "" {
		return p.docs
	}
	page, of := "/reference/actions#", "an-organization"
	switch q.scope.Kind {
	case fleet.ScopeEnterprise:
		page, of = "/reference/enterprise-admin#", "an-enterprise"
	case fleet.ScopeRepo:
		of = "a-repository"
	}
	if p.flatDocs {
		page = "/actions/self-hosted-runners#"
	}
	return p.docs + page + anchor + of
}

// downloads is what the version offers.
func (p *profile) downloads() []byte {
	list := make([]map[string]string, len(p.builds))
	for i, b := range p.builds {
		file := "actions-runner-" + b.os + "-" + b.arch + "-" + p.application + "." + b.ending
		list[i] = map[string]string{
			"os": b.os, "architecture": b.arch, "filename": file,
			"download_url": "https://github.com/actions/runner/releases/download/v" + p.application + "/" + file,
		}
	}
	return quote(list)
}
