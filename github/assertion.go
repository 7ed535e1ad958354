package github

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

const (
	assertionBack = time.Minute     // GitHub's advice, for clocks that differ a little
	assertionLife = 9 * time.Minute // GitHub takes 10 at most, from its own now on
)

// CheckPrivateKey reports whether a key of a GitHub App can be used: an RSA
// key in PEM, as PKCS #1 (what GitHub gives) or PKCS #8. The error repeats
// nothing of it.
func CheckPrivateKey(key fleet.Secret) error {
	_, err := parsePrivateKey(key)
	return err
}

func parsePrivateKey(key fleet.Secret) (*rsa.PrivateKey, error) {
	block, _ := pem.Decode([]byte(key.Reveal()))
	if block == nil {
		return nil, errors.New("not a private key in PEM, which begins with -----BEGIN and has line breaks")
	}
	var parsed any
	var err error
	switch block.Type {
	case "RSA PRIVATE KEY":
		if block.Headers["DEK-Info"] != "" {
			return nil, errors.New("the private key is encrypted: GitHub gives it in the clear")
		}
		parsed, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "PRIVATE KEY":
		parsed, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "ENCRYPTED PRIVATE KEY":
		return nil, errors.New("the private key is encrypted: GitHub gives it in the clear")
	default:
		return nil, fmt.Errorf("the PEM holds a %s, not a private key of RSA", clean(block.Type))
	}
	if err != nil {
		return nil, errors.New("the private key is damaged")
	}
	rsaKey, ok := parsed.(*rsa.PrivateKey)
	if !ok {
		return nil, errors.New("the private key is not of RSA, which is what GitHub Apps have")
	}
	return rsaKey, nil
}

// assertion is the JSON Web Token by which the App proves who it is. It is
// signed here because nothing but this one fixed form is needed, and none is
// ever read.
func (a *App) assertion(ctx context.Context) (fleet.Secret, error) {
	secret, err := a.key(ctx)
	if err != nil {
		return fleet.Secret{}, err
	}
	key, err := parsePrivateKey(secret)
	if err != nil {
		return fleet.Secret{}, err
	}
	server, _ := a.server.time()
	issued := server.Add(-assertionBack)
	claims, err := json.Marshal(struct {
		IssuedAt int64  `json:"iat"`
		Expires  int64  `json:"exp"`
		Issuer   string `json:"iss"`
	}{issued.Unix(), issued.Add(assertionLife).Unix(), strconv.FormatInt(a.id, 10)})
	if err != nil {
		return fleet.Secret{}, err
	}
	text := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"RS256","typ":"JWT"}`)) + "." +
		base64.RawURLEncoding.EncodeToString(claims)
	digest := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, digest[:])
	if err != nil {
		return fleet.Secret{}, errors.New("sign with the private key: it is damaged or too short")
	}
	return fleet.NewSecret(text + "." + base64.RawURLEncoding.EncodeToString(signature)), nil
}
