// app/api/backup/route.ts: Vercel's cron calls it, and it calls pgkeep, which starts a backup and answers at once.
// Variables: CRON_SECRET, the same as `server.cron.secret`; PGKEEP_URL, https://backups.example.com/api/v1/cron/shop
// vercel.json: {"crons": [{"path": "/api/backup", "schedule": "17 3 * * *"}]}
export const dynamic = "force-dynamic";

export async function GET(request: Request): Promise<Response> {
  const bearer = `Bearer ${process.env.CRON_SECRET}`;
  if (!process.env.CRON_SECRET || request.headers.get("authorization") !== bearer) {
    return new Response("unauthorized\n", { status: 401 });
  }
  const headers = { authorization: bearer };
  const signal = AbortSignal.timeout(20_000);
  const answer = await fetch(process.env.PGKEEP_URL!, { method: "POST", headers, signal, cache: "no-store" });
  return new Response(await answer.text(), { status: answer.status, headers: { "content-type": "application/json" } });
}
