package github_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
)

func TestKeysOfAnApp(t *testing.T) {
	t.Parallel()
	block := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	pkcs8 := func(key any) []byte {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := pkcs1(keys()[0])
	for _, tt := range []struct{ name, key, want string }{
		{"as GitHub gives it", good, ""},
		{"without the last line break", strings.TrimSpace(good), ""},
		{"PKCS #8", block("PRIVATE KEY", pkcs8(keys()[0])), ""},
		{"empty", "", "not a private key in PEM, which begins with -----BEGIN and has line breaks"},
		{"without line breaks", strings.ReplaceAll(good, "\n", " "), "not a private key in PEM, which begins with -----BEGIN and has line breaks"},
		{"a curve", block("PRIVATE KEY", pkcs8(curve)), "the private key is not of RSA, which is what GitHub Apps have"},
		{"the public key", block("PUBLIC KEY", x509.MarshalPKCS1PublicKey(&keys()[0].PublicKey)), "the PEM holds a PUBLIC KEY, not a private key of RSA"},
		{"damaged", block("RSA PRIVATE KEY", []byte("hunter2")), "the private key is damaged"},
		{"encrypted", block("ENCRYPTED PRIVATE KEY", []byte("x")), "the private key is encrypted: GitHub gives it in the clear"},
		{"encrypted in the old way", "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n",
			"the private key is encrypted: GitHub gives it in the clear"},
	} {
		err := github.CheckPrivateKey(fleet.NewSecret(tt.key))
		if got := text(err); got != tt.want {
			t.Errorf("%s: CheckPrivateKey() = %q, want %q", tt.name, got, tt.want)
		}
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
