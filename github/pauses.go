package github

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

// PauseRecord keeps pauses for all processes that use the same credentials.
type PauseRecord interface {
	// Now is the clock that they share.
	Now(ctx context.Context) (time.Time, error)
	Save(ctx context.Context, p fleet.Pause) error
	Standing(ctx context.Context, at time.Time) ([]fleet.Pause, error) // those that are not over
}

// pauseLimit is how long the record may take to note a pause while the request
// that met it waits for that. What is not noted then is noted by Refresh.
const pauseLimit = 2 * time.Second

// Pauses is what GitHub has asked of credentials, whichever process it told. It
// is safe for concurrent use.
type Pauses struct {
	Record PauseRecord
	Clock  func() time.Time // that of the clients; nil: time.Now

	mu sync.Mutex
	// By credential, and by our clock. unsaid is what the record does not have
	// yet.
	known, unsaid map[string]fleet.Pause
}

// paused is a Client, or an App in what it asks for itself.
type paused interface{ Pause(until time.Time) }

func (p *Pauses) clock() time.Time {
	if p.Clock == nil {
		return time.Now()
	}
	return p.Clock()
}

// Told records what a client heard: the OnPause of a Config, but for the
// credential. It does so at once, and whatever becomes of the request that met
// the pause. It reports whether other processes can know now.
func (p *Pauses) Told(credential string, until time.Time, reason string) bool {
	// What is under way together is refused together, within a second or so:
	// one row does for all of it.
	pause := fleet.Pause{Credential: credential, Until: until.Truncate(time.Second).Add(time.Second), ToldAt: p.clock(), Reason: reason}
	p.mu.Lock()
	if !pause.Until.After(p.known[credential].Until) {
		_, waits := p.unsaid[credential]
		p.mu.Unlock()
		return !waits
	}
	p.know(pause)
	p.unsaid = with(p.unsaid, pause)
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), pauseLimit)
	defer cancel()
	return p.say(ctx, pause) == nil
}

// know takes over a pause, unless a longer one is known. The mutex is held.
func (p *Pauses) know(pause fleet.Pause) {
	if pause.Until.After(p.known[pause.Credential].Until) {
		p.known = with(p.known, pause)
	}
}

func with(m map[string]fleet.Pause, p fleet.Pause) map[string]fleet.Pause {
	if m == nil {
		m = map[string]fleet.Pause{}
	}
	m[p.Credential] = p
	return m
}

// say writes a pause into the record, by the record's clock.
func (p *Pauses) say(ctx context.Context, pause fleet.Pause) error {
	ours := p.clock() // before theirs, so that it ends late rather than early
	theirs, err := p.Record.Now(ctx)
	if err != nil {
		return err
	}
	told := pause
	told.Until, told.ToldAt = theirs.Add(pause.Until.Sub(ours)), theirs.Add(pause.ToldAt.Sub(ours))
	if err := p.Record.Save(ctx, told); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.unsaid[pause.Credential] == pause {
		delete(p.unsaid, pause.Credential)
	}
	return nil
}

// Refresh reads what other processes were told, and writes what could not be
// written before. Where it fails, what was known holds.
func (p *Pauses) Refresh(ctx context.Context) error {
	var errs []error
	for _, pause := range p.pending() {
		errs = append(errs, p.say(ctx, pause))
	}
	theirs, err := p.Record.Now(ctx)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	all, err := p.Record.Standing(ctx, theirs)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	ours := p.clock() // after theirs, so that it ends late rather than early
	p.mu.Lock()
	defer p.mu.Unlock()
	for credential, pause := range p.known {
		if !pause.Until.After(ours) {
			delete(p.known, credential)
		}
	}
	for _, pause := range all {
		pause = notLater(pause, theirs)
		pause.Until, pause.ToldAt = ours.Add(pause.Until.Sub(theirs)), ours.Add(pause.ToldAt.Sub(theirs))
		p.know(pause)
	}
	return errors.Join(errs...)
}

// notLater is a pause as the record would have it if it had been told by now. One
// that was told later than now was told before the record's clock went back: it
// would last for as much longer. It is pure.
func notLater(p fleet.Pause, now time.Time) fleet.Pause {
	ahead := p.ToldAt.Sub(now)
	if ahead > 0 {
		p.Until, p.ToldAt = p.Until.Add(-ahead), now
	}
	return p
}

// pending is what the record lacks, as long as it is not over.
func (p *Pauses) pending() []fleet.Pause {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []fleet.Pause
	for credential, pause := range p.unsaid {
		if !pause.Until.After(p.clock()) {
			delete(p.unsaid, credential)
			continue
		}
		all = append(all, pause)
	}
	return all
}

// Of is the pause of a credential; zero: none is known.
func (p *Pauses) Of(credential string) fleet.Pause {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.known[credential]
}

// Impose has a client with the credential keep the pause that is known of it.
func (p *Pauses) Impose(credential string, c paused) {
	if pause := p.Of(credential); pause.Until.After(p.clock()) {
		c.Pause(pause.Until)
	}
}
