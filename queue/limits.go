package queue

import (
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

// maxShrink bounds how far the streams shrink in a small store: to 1/128, about
// 8 MiB for all of them.
const maxShrink = 7

// Error codes of JetStream that mean a lack of space.
const (
	errAccountFull     jetstream.ErrorCode = 10002 // the account's limit is reached
	errNoPeers         jetstream.ErrorCode = 10005 // no server of the cluster can take the stream
	errServerFull      jetstream.ErrorCode = 10023 // the server's limit is reached
	errStorageReserved jetstream.ErrorCode = 10047 // the rest of the store is reserved by other streams
	errMessageTooLarge jetstream.ErrorCode = 10054
	errStoreFailed     jetstream.ErrorCode = 10077 // the stream is full, or its files cannot be written
)

// isOurSize reports whether muster has chosen this size of the stream.
func (s stream) isOurSize(size int64) bool {
	for shrink := range maxShrink + 1 {
		if size == s.maxBytes>>shrink {
			return true
		}
	}
	return false
}

// reserved is a size that muster may have chosen, or else the one it would like.
func (s stream) reserved(size int64) int64 {
	if s.isOurSize(size) {
		return size
	}
	return s.maxBytes
}

// wantedStore is the space that muster's streams would like to have in all, in
// bytes and per replica of the streams.
func wantedStore() int64 {
	var all int64
	for _, s := range streams {
		all += s.maxBytes
	}
	return all
}

func inMiB(bytes int64) string { return fmt.Sprintf("%d MiB", (bytes+1<<20-1)>>20) }

// lacksRoom reports whether a stream could not be made, or not be given its
// size, because other streams have the store.
func lacksRoom(err error) bool {
	if hasCode(err, errStorageReserved, errAccountFull) {
		return true
	}
	return hasCode(err, errNoPeers) && strings.Contains(err.Error(), "insufficient storage")
}

// isFull reports whether a message was refused for lack of space.
func isFull(err error) bool {
	if hasCode(err, errAccountFull, errServerFull, errStorageReserved) {
		return true
	}
	return hasCode(err, errStoreFailed) && strings.Contains(err.Error(), "maximum bytes exceeded")
}

// hasCode reports whether JetStream answered with one of the error codes.
func hasCode(err error, codes ...jetstream.ErrorCode) bool {
	api, ok := errors.AsType[*jetstream.APIError](err)
	if !ok {
		return false
	}
	for _, code := range codes {
		if api.ErrorCode == code {
			return true
		}
	}
	return false
}
