package dbtest

import (
	"context"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
)

// RoundTrips is a pgx.QueryTracer that counts what waits for the server: each
// statement, COPY and batch once. The zero value has counted none. It is safe
// for concurrent use.
type RoundTrips struct{ n atomic.Int64 }

// Count is how many there were so far.
func (r *RoundTrips) Count() int64 { return r.n.Load() }

func (r *RoundTrips) begin(ctx context.Context) context.Context {
	r.n.Add(1)
	return ctx
}

// TraceQueryStart counts a statement.
func (r *RoundTrips) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return r.begin(ctx)
}

// TraceCopyFromStart counts a COPY.
func (r *RoundTrips) TraceCopyFromStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceCopyFromStartData) context.Context {
	return r.begin(ctx)
}

// TraceBatchStart counts a batch.
func (r *RoundTrips) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	return r.begin(ctx)
}

// TraceQueryEnd counts nothing, as the others of pgx's tracers.
func (*RoundTrips) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// TraceCopyFromEnd counts nothing.
func (*RoundTrips) TraceCopyFromEnd(context.Context, *pgx.Conn, pgx.TraceCopyFromEndData) {}

// TraceBatchQuery counts nothing: a batch is one.
func (*RoundTrips) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}

// TraceBatchEnd counts nothing.
func (*RoundTrips) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {}
