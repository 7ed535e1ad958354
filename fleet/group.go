package fleet

// GroupVisibility is whose workflow jobs the runners of a group take.
type GroupVisibility string

const (
	GroupAll      GroupVisibility = "all"
	GroupPrivate  GroupVisibility = "private" // of repositories that are not public
	GroupSelected GroupVisibility = "selected"
)

// RunnerGroup is a runner group of an organisation or enterprise.
type RunnerGroup struct {
	ID         string // as a runner names it
	Name       string
	Visibility GroupVisibility
	Public     bool     // whether it takes jobs of public repositories at all
	Selected   []string // of GroupSelected: repositories as OWNER/REPO, or an enterprise's organisations; lower case, sorted
}
