package githubsim

import "github.com/muster-fleet/muster/fleet"

// groupCommand is what concerns runner groups.
type groupCommand struct {
	ID         string                `json:"id"`
	Visibility fleet.GroupVisibility `json:"visibility"`
	Public     bool                  `json:"public"`
	Selected   []string              `json:"selected"`
	Group      int64                 `json:"group"` // of a runner
}

const groupTakes = "scope! id! name visibility public selected"

// commandGroup adds a group or puts another in its place.
func (s *Sim) commandGroup(c command, scope fleet.Scope) (any, error) {
	return nil, s.SetGroup(scope, fleet.RunnerGroup{
		ID: c.ID, Name: c.Name, Visibility: c.Visibility, Public: c.Public, Selected: c.Selected,
	})
}
