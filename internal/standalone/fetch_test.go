package standalone

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// repository is a Maven repository with one artefact, a PostgreSQL whose
// programs are scripts that call the real ones.
type repository struct {
	jar      []byte
	checksum string
	fetched  atomic.Int64 // jars sent
}

func (r *repository) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	switch {
	case !strings.HasPrefix(req.URL.Path, "/maven2/io/zonky/test/postgres/embedded-postgres-binaries-"):
		http.NotFound(w, req)
	case strings.HasSuffix(req.URL.Path, ".jar.sha256"):
		_, _ = w.Write([]byte(r.checksum)) // a client that has gone needs none
	case strings.HasSuffix(req.URL.Path, ".jar"):
		r.fetched.Add(1)
		_, _ = w.Write(r.jar) // as above
	default:
		http.NotFound(w, req)
	}
}

func newRepository(t *testing.T) *repository {
	t.Helper()
	a, err := postgresAccount()
	if err != nil {
		t.Fatal(err)
	}
	bins, err := provide(t.Context(), PostgresConfig{Log: quiet()}, a, installed(t.Context()), rootHome, 0)
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	tw := tar.NewWriter(&archive)
	for _, name := range []string{"postgres", "initdb", "pg_ctl"} {
		script := fmt.Sprintf("#!/bin/sh\nexec '%s' \"$@\"\n", filepath.Join(bins.dir, name))
		if err := tw.WriteHeader(&tar.Header{Name: "bin/" + name, Mode: 0o700, Size: int64(len(script))}); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write([]byte(script)); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	var jar bytes.Buffer
	zw := zip.NewWriter(&jar)
	f, err := zw.Create("postgres-any.txz")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(xzStored(archive.Bytes())); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(jar.Bytes())
	return &repository{jar: jar.Bytes(), checksum: hex.EncodeToString(sum[:])}
}

// xzStored puts data into the xz format without compressing it: the standard
// library has no xz, and a test should not need the program.
func xzStored(data []byte) []byte {
	le := binary.LittleEndian
	crc := func(b []byte) []byte { return le.AppendUint32(nil, crc32.ChecksumIEEE(b)) }
	pad := func(b []byte) []byte { return append(b, make([]byte, -len(b)&3)...) }
	flags := []byte{0, 1} // checks are CRC32

	block := []byte{2, 0, 0x21, 1, 0x16, 0, 0, 0} // one filter, LZMA2, 8 MiB dictionary
	block = append(block, crc(block)...)
	control := byte(1) // resets the dictionary
	for rest := data; len(rest) > 0; control = 2 {
		n := min(len(rest), 1<<16)
		block = append(block, control)
		block = binary.BigEndian.AppendUint16(block, uint16(n-1))
		block = append(block, rest[:n]...)
		rest = rest[n:]
	}
	block = append(block, 0)
	unpadded := len(block) + 4
	block = append(pad(block), crc(data)...)

	index := []byte{0, 1}
	index = binary.AppendUvarint(index, uint64(unpadded))
	index = binary.AppendUvarint(index, uint64(len(data)))
	index = pad(index)
	index = append(index, crc(index)...)

	footer := append(le.AppendUint32(nil, uint32(len(index)/4-1)), flags...)
	out := append([]byte("\xfd7zXZ\x00"), flags...)
	out = append(out, crc(flags)...)
	out = append(out, block...)
	out = append(out, index...)
	out = append(out, crc(footer)...)
	out = append(out, footer...)
	return append(out, "YZ"...)
}

func TestPostgresIsFetchedWhereTheMachineHasNone(t *testing.T) {
	repo := newRepository(t)
	srv := httptest.NewServer(repo)
	t.Cleanup(srv.Close)
	temp := tree(t)
	t.Setenv("TMPDIR", temp)
	cache := filepath.Join(temp, "cache")

	for _, name := range []string{"one", "two"} {
		pg, err := startPostgres(t.Context(), PostgresConfig{
			DataDir: filepath.Join(temp, name), Fast: true, Log: quiet(),
			RepositoryURL: srv.URL + "/maven2/", CacheDir: cache,
		}, nil, rootHome)
		if err != nil {
			t.Fatal(err)
		}
		if got := query(t, pg.URL(), `SELECT 'up'`); got != "up" {
			t.Errorf("from fetched programs: %q", got)
		}
		if err := pg.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if got := repo.fetched.Load(); got != 1 {
		t.Errorf("fetched %d times, want once", got)
	}
	left, err := os.ReadDir(cache)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range left {
		if name := entry.Name(); name != lockName && !strings.HasPrefix(name, "postgres-18") {
			t.Errorf("left behind: %s", name)
		}
	}
	if got := libraryLogs(); len(got) > 0 {
		t.Errorf("logs of the library left behind: %v", got)
	}
}

func TestPostgresThatCannotBeFetchedIsSaid(t *testing.T) {
	t.Parallel()
	good := newRepository(t)
	serve := func(h http.Handler) string {
		srv := httptest.NewServer(h)
		t.Cleanup(srv.Close)
		return srv.URL + "/maven2"
	}
	dead := httptest.NewServer(http.NotFoundHandler())
	dead.Close()
	tests := []struct{ name, url, want string }{
		{"nobody there", dead.URL, "unable to connect"},
		{"nothing there", serve(http.NotFoundHandler()), "no version found"},
		{"wrong checksum", serve(&repository{jar: good.jar, checksum: strings.Repeat("0", 64)}), "checksums do not match"},
		{"not an archive", serve(&repository{jar: []byte("<html>"), checksum: sumOf("<html>")}), "zip"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cache := t.TempDir()
			cfg := PostgresConfig{DataDir: t.TempDir(), Log: quiet(), RepositoryURL: tt.url, CacheDir: cache}
			_, err := startPostgres(t.Context(), cfg, nil, rootHome)
			oneLine(t, err, "no PostgreSQL 15 or later", "install PostgreSQL", "MUSTER_DATABASE_URL", tt.url, tt.want)
			left, err := filepath.Glob(filepath.Join(cache, "*-*"))
			if err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

func sumOf(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}
