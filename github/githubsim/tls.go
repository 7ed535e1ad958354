package githubsim

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"slices"
	"time"
)

// FaultTLS ends connections to a Sim with Config.TLS before they are secure.
const FaultTLS FaultKind = "tls"

// errHandshake is what the server's own log says of FaultTLS.
var errHandshake = errors.New("a fault ends the handshake")

// secure is the listener with TLS, by a certificate that only those trust who
// have it from Roots.
func (s *Sim) secure(l net.Listener) (net.Listener, error) {
	own, err := selfSigned(l.Addr())
	if err != nil {
		return nil, fmt.Errorf("github simulator: make a certificate: %w", err)
	}
	s.roots = x509.NewCertPool()
	s.roots.AddCert(own.Leaf)
	return tls.NewListener(l, &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			if s.refuseHandshake() {
				return nil, errHandshake
			}
			return own, nil
		},
	}), nil
}

// Roots are what a client has to trust of a Sim with Config.TLS; nil for others.
// Call it after Ready.
func (s *Sim) Roots() *x509.CertPool { return s.roots }

func (s *Sim) refuseHandshake() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	refused := false
	for _, f := range s.faults {
		if f.Kind != FaultTLS {
			continue
		}
		if _, struck := s.roll(f, "handshake"); struck {
			refused = true
		}
	}
	if refused {
		s.record(Event{Change: ChangeHandshake, Fault: string(FaultTLS)})
	}
	return refused
}

// selfSigned is a certificate for this address and for localhost. It is for a
// day of the real clock, by which clients judge it.
func selfSigned(at net.Addr) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: "simulated GitHub"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(day),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IsCA: true, BasicConstraintsValid: true,
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	if tcp, ok := at.(*net.TCPAddr); ok && !slices.ContainsFunc(template.IPAddresses, tcp.IP.Equal) {
		template.IPAddresses = append(template.IPAddresses, tcp.IP)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

// origin is where a request came to.
func origin(r *http.Request) string {
	if r.TLS != nil {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}
