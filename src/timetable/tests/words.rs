use super::*;

#[test]
fn words_tell_when_an_expression_fires() {
    let cases = [
        ("0 6 * * *", "at 06:00 every day"),
        ("0 6 * * mon-fri", "at 06:00 on Monday to Friday"),
        ("0 6,18 * * sat,sun", "at 06:00 and 18:00 on Saturday and Sunday"),
        ("30 4 1,15 * 5", "at 04:30 on the 1st and 15th of the month or on Friday"),
        ("*/15 * * * *", "every 15 minutes"),
        ("*/15 9-17 * * 1-5", "every 15 minutes from 09:00 to 17:59 on Monday to Friday"),
        ("*/7 * * * *", "at every 7th minute from 0 to 56 of every hour"),
        ("5/15 * * * *", "at every 15th minute from 5 to 50 of every hour"),
        ("* * * * *", "every minute"),
        ("0 * * * *", "at minute 0 of every hour"),
        ("30 * * * *", "at minute 30 of every hour"),
        ("0 */2 * * *", "every 2 hours from 00:00 to 22:00"),
        ("0 9-17 * * *", "every hour from 09:00 to 17:00"),
        ("0 22-3 * * *", "at 00:00, 01:00, 02:00, 03:00, 22:00 and 23:00 every day"),
        ("5,35 8-10 * * *", "at 08:05, 08:35, 09:05, 09:35, 10:05 and 10:35 every day"),
        ("* 3 * * *", "every minute from 03:00 to 03:59"),
        ("* 3,7 * * *", "every minute of hours 3 and 7"),
        ("0 0 L * *", "at 00:00 on the last day of the month"),
        ("0 0 15,L * *", "at 00:00 on the 15th and the last day of the month"),
        ("0 9 15W * *", "at 09:00 on the weekday (Monday to Friday) nearest to the 15th of the month"),
        ("0 9 15W * 1", "at 09:00 on the weekday (Monday to Friday) nearest to the 15th of the month"),
        (
            "0 9 15W * 1#3",
            "at 09:00 on the weekday (Monday to Friday) nearest to the 15th of the month if that is the third Monday of the month",
        ),
        ("0 9 13 * fri#2", "at 09:00 on the second Friday of the month"),
        ("0 9 * * fri#2", "at 09:00 on the second Friday of the month"),
        ("0 9 * * 1#1,3#2,3#3", "at 09:00 on the first Monday and the second and third Wednesday of the month"),
        ("0 9 * * L5", "at 09:00 on the last Friday of the month"),
        ("0 0 */2 * *", "at 00:00 on every 2nd day from the 1st to the 31st of the month"),
        ("0 0 1-7 * *", "at 00:00 on the 1st to 7th of the month"),
        ("0 0 1 1,7 *", "at 00:00 on the 1st of the month in January and July"),
        ("0 0 1 */3 *", "at 00:00 on the 1st of the month in January, April, July and October"),
        ("0 0 1 nov-feb *", "at 00:00 on the 1st of the month in January, February, November and December"),
        ("0 12 * * * 30", "at 12:00:30 every day"),
        ("* * * * * */20", "every 20 seconds"),
        ("* * * * * *", "every second"),
        ("*/10 * * * * *", "every second of every 10th minute from 0 to 50 of every hour"),
        ("0 12 * * * *", "every second of minute 0 of hour 12"),
        ("0 12 * * * 0,30", "every 30 seconds of minute 0 of hour 12"),
        ("0 0 1 1 * 0 2026-2030", "at 00:00 on the 1st of the month in January in 2026 to 2030"),
        ("0 12 * * * 0 2025/2", "at 12:00 every day in every 2nd year from 2025 to 2099"),
        ("0 12 * * * 0 2026", "at 12:00 every day in 2026"),
        ("0 0 30 2 *", "at 00:00 on the 30th of the month in February, a date that never comes"),
        ("0 0 31 2 5", "at 00:00 on the 31st of the month or on Friday in February"),
        ("0 0 ? * 1", "at 00:00 on Monday"),
        ("*,5 12 * * *", "every minute from 12:00 to 12:59"),
        ("@weekly", "at 00:00 on Sunday"),
    ];
    for (text, words) in cases {
        assert_eq!(Cron::parse(text).unwrap().words(), words, "{text}");
    }
}
