// Package scheduler is durable cron: every replica computes the due moments of
// every schedule by the store's clock and tries to record each as a row; who
// records it fires it. There is no leader, and a moment that nobody was there
// for is recorded as missed.
package scheduler
