package fleet

import "crypto/sha256"

// Page is what is kept of one page of a target's listing, so that the next walk
// need neither fetch nor decode it again where nothing on it has changed.
type Page struct {
	Number int // from 1
	// ETag is GitHub's validator, empty where it gave none. GitHub computes it
	// over the Authorization header too, so it is good for that credential
	// alone, of which Credential is the fingerprint.
	ETag       string
	Credential string
	SHA256     Digest  // of the body
	Total      int     // total_count, as this page tells it
	Last       int     // number of the last page by the Link header; 0: it does not say
	IDs        []int64 // of its runners, in its order
	// Shown ties the page to the rows of its runners: a sum over what they
	// showed when the page was kept. It is of whoever keeps pages.
	Shown int64
}

// Digest is a SHA-256 sum. The zero Digest is of nothing.
type Digest [sha256.Size]byte

// KeptListing is what is kept of the walks over a target. The zero value is
// nothing.
type KeptListing struct {
	Pages []Page // in any order, each number once
	// Proven identifies a listing that has proven itself complete, by the
	// bodies of its pages. One that is the same to the byte need not be counted
	// again. Zero: none.
	Proven Digest
}
