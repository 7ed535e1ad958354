package githubsim

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"

	"github.com/muster-fleet/muster/fleet"
)

// appCommand is what concerns Apps.
type appCommand struct {
	App           int64             `json:"app"`
	PublicKey     string            `json:"public_key"` // PEM
	Permissions   map[string]string `json:"permissions"`
	Installation  int64             `json:"installation"`
	Installations []struct {
		ID           int64    `json:"id"`
		Account      string   `json:"account"`
		Repositories []string `json:"repositories"`
	} `json:"installations"`
}

func (s *Sim) commandApp(c command, _ fleet.Scope) (any, error) {
	block, _ := pem.Decode([]byte(c.PublicKey))
	if block == nil {
		return nil, fmt.Errorf("%w: app: public_key is not PEM", errCommand)
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	key, ok := parsed.(*rsa.PublicKey)
	if err != nil || !ok {
		return nil, fmt.Errorf("%w: app: public_key: want an RSA key, as openssl rsa -pubout gives it", errCommand)
	}
	a := App{ID: c.App, PublicKey: key, Permissions: c.Permissions}
	for _, in := range c.Installations {
		a.Installations = append(a.Installations, Installation{ID: in.ID, Account: in.Account, Repositories: in.Repositories})
	}
	return nil, s.AddApp(a)
}
