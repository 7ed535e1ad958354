package github

import "strings"

// systems are what operating systems are called here, and how what servers and
// runners of different age call them begins: newer runners send the name of the
// distribution.
var systems = []struct {
	name       string
	beginnings []string
}{
	{"linux", []string{
		"linux", "ubuntu", "debian", "red hat", "rhel", "centos", "fedora", "rocky", "almalinux", "oracle", "amazon",
		"suse", "sles", "opensuse", "alpine", "arch", "raspbian", "gentoo", "nixos", "flatcar", "cbl-mariner",
	}},
	{"windows", []string{"windows", "microsoft windows", "win"}},
	{"macos", []string{"macos", "mac os", "darwin", "osx", "os x"}},
}

// system gives one word for an operating system, whether it is said to be
// linux, Linux or Ubuntu 22.04.5 LTS, so that a newer server does not look like
// another fleet. What is none of the three stays what was said, in lower case.
// "unknown" is empty: GitHub says it of a runner that has never connected.
func system(said string) string {
	if said == systems[0].name {
		return said
	}
	lower := strings.ToLower(strings.TrimSpace(said))
	for _, s := range systems {
		for _, beginning := range s.beginnings {
			if strings.HasPrefix(lower, beginning) {
				return s.name
			}
		}
	}
	if lower == "unknown" {
		return ""
	}
	if strings.Contains(lower, "linux") {
		return "linux"
	}
	return lower
}
